"""Held-out loss per document, in nats and in bits per byte, which compares models with different tokenizers.

``bits_per_byte = nats / (ln 2 · UTF-8 bytes)``: a tokenizer that makes longer tokens pays more nats for each
and the same bits for the text (karpathy/nanochat, ``loss_eval.py``). Every token of a document is scored, the
first after the beginning-of-text token.

*Covered*: each token scored once, documents kept apart so that evidence can cluster by them. *Not covered*:
with ``at_most_bytes`` only the beginning of a long document counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sharedllm.corpus import Document
from sharedllm.model import Tokenizer, Transformer, score
from sharedllm.shapes import bits_per_byte
from sharedllm.training.data import opening

__all__ = ["DocumentLoss", "beginning", "held_out", "overall"]


@dataclass(frozen=True)
class DocumentLoss:
    """The loss over one document, summed: ``nats`` over ``tokens`` tokens that spell ``n_bytes`` bytes."""

    id: str
    nats: float
    tokens: int
    n_bytes: int

    @property
    def bits_per_byte(self) -> float:
        return bits_per_byte(self.nats, self.n_bytes)


def held_out(
    model: Transformer,
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    *,
    window: int,
    at_most_bytes: int | None = None,
) -> tuple[DocumentLoss, ...]:
    """Score each document, or its first ``at_most_bytes``, in windows of ``window`` tokens."""
    losses = []
    for document in documents:
        text = beginning(document.text, at_most_bytes)
        tokens = [*opening(tokenizer), *tokenizer.encode(text)]
        nats_T = score(model, tokens, window)
        nats = nats_T.double().sum().item()
        losses.append(DocumentLoss(document.id, nats, len(nats_T), len(text.encode())))
    return tuple(losses)


def beginning(text: str, at_most_bytes: int | None) -> str:
    """Return the longest prefix of ``text`` that fits into ``at_most_bytes`` of UTF-8, never half a
    character.
    """
    if at_most_bytes is None:
        return text
    return text.encode()[:at_most_bytes].decode("utf-8", "ignore")


def overall(losses: Sequence[DocumentLoss]) -> float:
    """Return the bits per byte of all documents taken together (long ones weigh more)."""
    return bits_per_byte(sum(loss.nats for loss in losses), sum(loss.n_bytes for loss in losses))
