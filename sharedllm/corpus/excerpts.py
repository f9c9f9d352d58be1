"""Excerpts: a fixed number of held-out tokens, spread evenly over documents, so that losses pair and cluster.

Every model that is compared scores the same excerpts with the same context, so that differences are paired by
token; each excerpt knows its document, so that intervals cluster by document (Miller 2411.00640).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sharedllm.corpus.document import Document
from sharedllm.errors import MissingSource

__all__ = ["Excerpt", "excerpts", "sampled"]


@dataclass(frozen=True)
class Excerpt:
    """Consecutive tokens of one document; the first is context only, the others are scored."""

    document: str
    tokens: tuple[int, ...]


def excerpts(
    encode: Callable[[str], list[int]], documents: Sequence[Document], total_tokens: int, window: int
) -> list[Excerpt]:
    """Cut at most ``total_tokens`` scored tokens out of ``documents``, ``window`` to an excerpt.

    Documents get equal numbers of windows (to one), evenly spaced over each; a document shorter than a window
    gives all it has. Deterministic. Raises ``MissingSource`` when nothing can be scored.
    """
    tokens = [encode(document.text) for document in documents]
    usable = [(d, t) for d, t in zip(documents, tokens, strict=True) if len(t) > 1]
    windows = max(1, total_tokens // window)
    cut: list[Excerpt] = []
    for i, (document, ids) in enumerate(usable):
        share = windows * (i + 1) // len(usable) - windows * i // len(usable)
        room = max(0, len(ids) - 1 - window)
        share = min(share, room // window + 1)
        for k in range(share):
            start = room * k // max(1, share - 1) if share > 1 else room // 2
            cut.append(Excerpt(document.id, tuple(ids[start : start + window + 1])))
    if not cut:
        raise MissingSource(
            f"{len(documents)} documents hold no two tokens to score; "
            "give documents with text, not an empty split."
        )
    return cut


def sampled(
    encode: Callable[[str], list[int]], documents: Sequence[Document], enough_bytes: int
) -> list[int]:
    """Encode every k-th document, so that about ``enough_bytes`` of text come from all over."""
    step = max(1, sum(document.n_bytes for document in documents) // enough_bytes)
    return [token for document in documents[::step] for token in encode(document.text)]
