"""What was sent, and whether what came back can be its result."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from sharedllm.engines import Ends
from sharedllm.model import Config
from sharedllm.nodes.primary.batching import Step
from sharedllm.wire import BadFrame, Codec, Frame, StepMeta, Want, decode

__all__ = ["Model", "Sent", "checked"]


@dataclasses.dataclass(frozen=True)
class Model:
    """What is served: its name, the hash of its weights, both its ends, and how hidden states travel."""

    name: str
    hash: str
    ends: Ends
    wire: Codec


@dataclasses.dataclass(frozen=True)
class Sent:
    """A step on its way: when it left (monotonic), and what the primary spent on it until then."""

    step: Step
    sent_s: float
    here_s: float


def checked(frame: Frame, sent: Sent | None, config: Config) -> tuple[StepMeta, Tensor, Tensor]:
    """The result's meta, the rows that readers wait for, and traced rows.

    Raises ``BadFrame`` for a result that nobody asked for, other segments, wrong shapes, or NaN.
    """
    if sent is None:
        raise BadFrame(f"A result came for step {frame.step}, which was not asked for.")
    meta, segments = StepMeta.from_bytes(frame.meta), sent.step.segments
    traced = config.layers * sum(segment.want is Want.TRACE for segment in segments)
    given = (meta.rows, meta.traced, meta.width)
    expected = (len(sent.step.readers), traced, config.width)
    if given != expected or meta.segments != segments:
        raise BadFrame(
            f"Rows, traced rows and their width are {given}; expected {expected} of the same step."
        )
    whole = decode(frame.body, meta.codec, meta.rows + meta.traced, meta.width)
    if not bool(whole.isfinite().all()):
        raise BadFrame("Hidden states came back that are not numbers.")
    return meta, whole[: meta.rows], whole[meta.rows :]
