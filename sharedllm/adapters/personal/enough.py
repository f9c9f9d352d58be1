"""Whether a person's text is enough to learn from and to judge by: known before any weights are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sharedllm.adapters.personal.search import Plan
from sharedllm.adapters.personal.splitting import VALIDATION, Splits, split
from sharedllm.corpus.document import Document
from sharedllm.errors import BadText

__all__ = ["Parts", "parts", "refuse_tiny"]

_LEAST_TOKENS = 2_000
_BYTES_PER_TOKEN = 5  # of English prose, with a vocabulary of 49,152
_SLACK = 1.25  # whole documents, or sections, may leave so much less for validation than its share


@dataclass(frozen=True)
class Parts:
    """The text in three parts, two of them as tokens."""

    splits: Splits
    train_T: Tensor = field(repr=False)
    held_T: Tensor = field(repr=False)


def refuse_tiny(documents: Sequence[Document]) -> None:
    """Refuse what has fewer bytes than it would need tokens, of which none is shorter; raises ``BadText``."""
    n_bytes = sum(document.n_bytes for document in documents)
    if n_bytes < _LEAST_TOKENS:
        needed = _thousands(_least(Plan()) * _BYTES_PER_TOKEN)
        raise BadText(
            f"{n_bytes:,} bytes of text are too few to learn from some of it and judge by the rest; give "
            f"about {needed} kB."
        )


def parts(
    encode: Callable[[str], list[int]], documents: Sequence[Document], plan: Plan, method: str
) -> Parts:
    """Split the text as a fit by ``method`` will; raises ``BadText`` for too little, with what to give."""
    tokens, least = sum(len(encode(document.text)) for document in documents), _least(plan)
    if tokens < _LEAST_TOKENS:
        raise BadText(
            f"The text has {tokens:,} tokens in {len(documents)} documents; to learn from some of it and "
            f"judge by the rest takes {_LEAST_TOKENS:,}. {_give(documents, least / max(1, tokens))}"
        )
    splits = split(documents)
    train_T, held_T = (
        torch.tensor([token for document in part for token in encode(document.text)])
        for part in (splits.train, splits.validation)
    )
    window = plan.window if method != "unigram" else 1
    for name, tokens_T in (("to learn from", train_T), ("to choose settings on", held_T)):
        if len(tokens_T) <= window:
            raise BadText(
                f"Only {len(tokens_T)} tokens of the text are left {name}, and a window takes {window + 1}. "
                + _give(documents, _SLACK * (window + 1) / max(1, len(tokens_T)))
            )
    return Parts(splits, train_T, held_T)


def _least(plan: Plan) -> float:
    """Tokens that suffice for most texts."""
    return max(_LEAST_TOKENS, _SLACK * (plan.window + 1) / VALIDATION)


def _give(documents: Sequence[Document], times: float) -> str:
    n_bytes = sum(document.n_bytes for document in documents)
    return f"Give about {_thousands(times * n_bytes)} kB of such text."


def _thousands(n_bytes: float) -> int:
    return int(n_bytes) // 1000 + 1
