"""How surprised a model is by text: exact log-probabilities, without ever holding T × V logits at once.

Long documents are cut into overlapping windows. Which token is scored in which window follows from the
document's length and the window alone, so that the distributions of several models over the same tokens line
up and can be mixed exactly.

*Covered*: every token after the first is scored exactly once, with at least half a window of context where
the document has that much; fp32 log-softmax. *Not covered*: two models' windows line up only if their
tokenizers agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sharedllm.errors import BadModelFile, BadPrompt
from sharedllm.model.transformer import Transformer

__all__ = ["Window", "log_probs", "score", "token_nats", "windows"]

_CHUNK_BYTES = 64 * 2**20  # logits held at once


class Window(NamedTuple):
    """Read tokens ``[start, stop)`` and score those from ``first`` on."""

    start: int
    first: int
    stop: int


def windows(length: int, window: int) -> list[Window]:
    """Cut a document of ``length`` tokens so that each token after the first is scored once.

    A window holds ``window`` tokens (fewer only if the document does); every one after the first scores
    behind at least ``window // 2`` tokens of context. Raises ``BadPrompt`` for a window under 2 tokens.
    """
    if window < 2:
        raise BadPrompt(f"A window of {window} tokens scores nothing; give at least 2.")
    cut: list[Window] = []
    scored = 1
    while scored < length:
        stop = min(length, scored + (window - window // 2) if cut else window)
        cut.append(Window(max(0, stop - window), scored, stop))
        scored = stop
    return cut


def token_nats(model: Transformer, tokens_BT: Tensor, lengths_B: Tensor | None = None) -> Tensor:
    """The surprise −log p of each token after the first: ``nats_BT`` with T one less than given.

    Positions at and behind a row's length are 0. Differentiable where gradients are on.
    """
    h_BTD = model.hidden(tokens_BT[:, :-1])
    target_BT = tokens_BT[:, 1:]
    h_MD, target_M = h_BTD.flatten(0, 1), target_BT.flatten()
    nats_BT = torch.cat(
        [
            F.cross_entropy(model.logits(h).float(), target, reduction="none")
            for h, target in zip(_chunks(model, h_MD), _chunks(model, target_M), strict=True)
        ]
    ).view_as(target_BT)
    if lengths_B is None:
        return nats_BT
    position_T = torch.arange(1, tokens_BT.shape[1], device=tokens_BT.device)
    return nats_BT.where(position_T < lengths_B[:, None].to(tokens_BT.device), 0.0)


@torch.no_grad()
def score(model: Transformer, tokens: Sequence[int], window: int) -> Tensor:
    """The surprise in nats of every token of a document after its first: ``nats_T``, T one less than given.

    Raises ``BadPrompt`` for a document under 2 tokens or a window beyond the context, ``BadModelFile`` when
    the model yields NaN.
    """
    document_T = _document(model, tokens)
    parts = []
    for h_TD, first, stop in _windows_of(model, document_T, window):
        chunks = zip(_chunks(model, h_TD), _chunks(model, document_T[first:stop]), strict=True)
        parts += [F.cross_entropy(model.logits(h).float(), target, reduction="none") for h, target in chunks]
    nats_T = torch.cat(parts)
    if not bool(nats_T.isfinite().all()):
        raise BadModelFile(
            "The model gives NaN or infinite surprise; its weights are damaged, fetch it again."
        )
    return nats_T


@torch.no_grad()
def log_probs(model: Transformer, tokens: Sequence[int], window: int) -> Iterator[tuple[int, Tensor]]:
    """The whole next-token distribution before every token of a document after its first, in order.

    Yields ``(first, logp_TV)``: row t is the distribution over token number ``first + t``. The bounds follow
    from the document's length, ``window`` and the vocabulary's size alone, so the chunks of several models
    can be zipped. Raises as ``score`` does, once it is iterated.
    """
    document_T = _document(model, tokens)
    for h_TD, first, _ in _windows_of(model, document_T, window):
        for h in _chunks(model, h_TD):
            yield first, torch.log_softmax(model.logits(h).float(), dim=-1)
            first += len(h)


def _windows_of(model: Transformer, document_T: Tensor, window: int) -> Iterator[tuple[Tensor, int, int]]:
    """Hidden states that predict tokens ``[first, stop)``, window by window."""
    for start, first, stop in windows(len(document_T), window):
        h_1TD = model.hidden(document_T[None, start : stop - 1])
        yield h_1TD[0, first - 1 - start :], first, stop


def _document(model: Transformer, tokens: Sequence[int]) -> Tensor:
    if len(tokens) < 2:
        raise BadPrompt(f"A document of {len(tokens)} tokens has nothing to score; give at least 2.")
    return torch.as_tensor(tokens, device=model.embed.weight.device)


def _chunks(model: Transformer, rows: Tensor) -> tuple[Tensor, ...]:
    """Cut rows so that one chunk's fp32 logits stay within ``_CHUNK_BYTES``."""
    return torch.split(rows, max(1, _CHUNK_BYTES // (4 * model.config.vocab_size)))
