"""What is sent in one step, and whether what came back can be its result."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from sharedllm.engines import Ends
from sharedllm.model import Config
from sharedllm.nodes.primary.sequence import Sequence
from sharedllm.wire import BadFrame, Codec, Frame, Kind, Op, Segment, StepMeta, Want, decode, encode

__all__ = ["Model", "Scored", "Sent", "Step", "checked", "composed", "framed"]


@dataclasses.dataclass(frozen=True)
class Model:
    """What is served: its name, the hash of its weights, both its ends, and how hidden states travel."""

    name: str
    hash: str
    ends: Ends
    wire: Codec


@dataclasses.dataclass(frozen=True)
class Scored:
    """A piece from ``start`` on, all of whose results are wanted: ``rows`` that come back, from ``at`` on."""

    sequence: Sequence
    life: int
    start: int
    at: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Step:
    """Segments for the workers, the tokens of their rows, and which request, in which life, waits for what.

    ``readers`` wait for the token behind so many (``behind``), whose rows among those that come back are
    ``read``. ``begun`` are the requests that have their slot since this step.
    """

    segments: tuple[Segment, ...]
    tokens: tuple[int, ...]
    readers: tuple[tuple[Sequence, int], ...]
    read: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    scored: tuple[Scored, ...] = ()
    begun: tuple[Sequence, ...] = ()

    @property
    def results(self) -> int:
        """Rows that come back."""
        return sum(segment.wanted for segment in self.segments)

    @property
    def bulk_rows(self) -> int:
        """Rows of the one longer piece (0: only single tokens)."""
        return max((s.rows for s in self.segments if s.rows > 1), default=0)


@dataclasses.dataclass(frozen=True)
class Sent:
    """A step on its way: when it left (monotonic), and what the primary spent on it until then."""

    step: Step
    sent_s: float
    here_s: float


def framed(model: Model, step: Step, epoch: int, number: int) -> Frame:
    """A step as the first worker gets it, its tokens embedded."""
    h_RD = model.ends.embed(step.tokens)
    meta = StepMeta(step.segments, model.wire, h_RD.shape[1], len(h_RD)).to_bytes()
    return Frame(Kind.STEP, epoch, number, meta, encode(h_RD, model.wire))


def checked(frame: Frame, sent: Sent | None, config: Config) -> tuple[StepMeta, Tensor, Tensor]:
    """The result's meta, the rows that are wanted, and traced rows.

    Raises ``BadFrame`` for a result that nobody asked for, other segments, wrong shapes, or NaN.
    """
    if sent is None:
        raise BadFrame(f"A result came for step {frame.step}, which was not asked for.")
    meta, segments = StepMeta.from_bytes(frame.meta), sent.step.segments
    traced = config.layers * sum(segment.want is Want.TRACE for segment in segments)
    given = (meta.rows, meta.traced, meta.width)
    expected = (sent.step.results, traced, config.width)
    if given != expected or meta.segments != segments:
        raise BadFrame(
            f"Rows, traced rows and their width are {given}; expected {expected} of the same step."
        )
    whole = decode(frame.body, meta.codec, meta.rows + meta.traced, meta.width)
    if not bool(whole.isfinite().all()):
        raise BadFrame("Hidden states came back that are not numbers.")
    return meta, whole[: meta.rows], whole[meta.rows :]


def composed(ops: list[Segment], chosen: list[Sequence]) -> Step:
    """Write the step down, and note for each request what is on its way."""
    segments, tokens = list(ops), list[int]()
    readers: list[tuple[Sequence, int]] = []
    read: list[int] = []
    scored: list[Scored] = []
    at = 0
    for sequence in chosen:
        rows, op = sequence.next_rows(), Op.CHUNK if sequence.in_prompt else Op.ROWS
        assert sequence.slot is not None
        tokens += sequence.tokens[sequence.fed : sequence.fed + rows]
        segment = Segment(op, sequence.slot, sequence.fed, rows, sequence.want(rows))
        segments.append(segment)
        at += segment.wanted
        if segment.want is Want.ALL:
            scored.append(Scored(sequence, sequence.life, sequence.fed, at - rows, rows))
        sequence.fed += rows
        if not sequence.pending:
            readers.append((sequence, sequence.life))
            read.append(at - 1)
    behind = tuple(sequence.fed for sequence, _ in readers)
    return Step(tuple(segments), tuple(tokens), tuple(readers), tuple(read), behind, tuple(scored))
