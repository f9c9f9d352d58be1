"""From hidden states that came back to what a request learns: its next token, or how likely its prompt was.

Logits take 64 times the memory of a hidden state, or more: those of a prompt are made a few rows at a time.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sharedllm.engines import Ends
from sharedllm.nodes.errors import NoPipeline
from sharedllm.nodes.primary.federated.wardrobe import rows_worn
from sharedllm.nodes.primary.results import Scored, Step
from sharedllm.nodes.primary.sequence import Sequence

__all__ = ["read"]

_ROWS = 16
_log = logging.getLogger(__name__)


def read(ends: Ends, step: Step, h_RD: Tensor, traces: Tensor, end: Callable[[Sequence], None]) -> int:
    """Hand everyone what the rows say, and ``end`` who has finished; returns how many tokens were read."""
    for scored in step.scored:
        if scored.sequence.life == scored.life:
            with _alone(scored.sequence, end):
                _score(ends, scored, h_RD)
    if not step.readers:
        return 0
    if step.scored:
        h_RD = h_RD[list(step.read)]
    logits_RV = ends.logits(h_RD, rows_worn([sequence for sequence, _ in step.readers], ends.gain_D))
    likeliest = logits_RV.argmax(dim=-1).tolist()
    tokens = 0
    readers = zip(step.readers, step.behind, logits_RV, likeliest, strict=True)
    for (sequence, life), behind, logits_V, token in readers:
        # a mixture may have chosen meanwhile: what a member says again after a replay is of no use then
        if sequence.life != life or len(sequence.tokens) != behind:
            continue
        if sequence.trace is not None:
            sequence.trace.set_result((logits_V, traces))
            end(sequence)
            continue
        with _alone(sequence, end):
            sequence.accept(logits_V, token)
        tokens += 1
        if sequence.mixed is None and sequence.finish_reason:
            end(sequence)
    return tokens


@contextlib.contextmanager
def _alone(sequence: Sequence, end: Callable[[Sequence], None]) -> Iterator[None]:
    """Let an error of our own in one answer end that one, with a sentence, and no other."""
    try:
        yield
    except Exception:
        _log.exception("an answer can't go on")
        sequence.fail(
            NoPipeline("This answer met an error in the primary, whose log says more; ask for it again.")
        )
        end(sequence)


def _score(ends: Ends, scored: Scored, h_RD: Tensor) -> None:
    """Tell a request how likely the tokens that follow a piece of its text were."""
    sequence = scored.sequence
    following = sequence.tokens[scored.start + 1 : scored.start + scored.rows + 1]
    gains_RD = rows_worn([sequence], ends.gain_D)
    for first in range(0, len(following), _ROWS):
        tokens_R1 = torch.tensor(following[first : first + _ROWS])[:, None]
        rows = slice(scored.at + first, scored.at + first + len(tokens_R1))
        wide_RD = None if gains_RD is None else gains_RD.expand(len(tokens_R1), -1)
        logp_RV = ends.logits(h_RD[rows], wide_RD).double().log_softmax(-1)
        sequence.scored(scored.start + first, logp_RV.gather(1, tokens_R1)[:, 0])
