"""From a person's documents to an adapter, and to the honest answer whether it helped.

Text that judges is read by nothing but the last two passes: learning rate, step, and whether there is an
adapter at all are chosen on other text. What is judged is the adapter as its file holds it, rounding
included, in fp32, against the base on the very same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sharedllm.adapters import unigram
from sharedllm.adapters.apply import applied, check_method
from sharedllm.adapters.file import AT_REST, Adapter, rounded
from sharedllm.adapters.fit import Budget, batches, spread
from sharedllm.adapters.personal.enough import parts
from sharedllm.adapters.personal.gain import Gain, excerpt_nats, gain_between
from sharedllm.adapters.personal.meter import Meter
from sharedllm.adapters.personal.search import Plan, Search, search, work
from sharedllm.corpus.document import Document
from sharedllm.corpus.excerpts import Excerpt, excerpts
from sharedllm.errors import BadAdapter
from sharedllm.store import Loaded, Progress

__all__ = ["Personal", "fit_text"]

_ROUNDING_TOKENS = 1_024


@dataclass(frozen=True)
class Personal:
    """A personal adapter as its file holds it, and all that a report says of it.

    ``rounding_nats``: what each precision adds to the loss of the unrounded adapter, nats per token.
    ``unit``: what the interval counts, ``document`` or ``section``. ``found`` is None for ``unigram``.
    """

    adapter: Adapter
    precision: str
    gain: Gain
    rounding_nats: dict[str, float]
    unit: str
    documents: int
    train_tokens: int
    validation_tokens: int
    found: Search | None
    seconds: float
    base: str = field(default="")

    def about(self) -> dict[str, Any]:
        """Say it in JSON values, for the adapter's file: numbers alone, no text and no names of files."""
        gain = self.gain
        said: dict[str, Any] = {
            "base": self.base,
            "gain_nats": gain.nats,
            "gain_low_nats": gain.low,
            "gain_high_nats": gain.high,
            "base_nats": gain.base_nats,
            "helped": gain.helped,
            "held_out_tokens": gain.tokens,
            f"held_out_{self.unit}s": gain.documents,
            "documents": self.documents,
            "train_tokens": self.train_tokens,
            "validation_tokens": self.validation_tokens,
            "rounding_nats": self.rounding_nats,
            "seconds": round(self.seconds, 1),
        }
        if self.found is not None:
            said |= {"lr": self.found.lr, "best_step": self.found.best_step, "steps": self.found.steps}
        return said


def fit_text(
    base: Loaded,
    documents: Sequence[Document],
    *,
    method: str = "norm",
    precision: str = "int8",
    seed: int = 0,
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> Personal:
    """Split, search, fit, judge. The base is left as it was; the same inputs give the same adapter.

    ``precision`` is that of the file to be. Raises ``BadText`` for too little text, ``BadAdapter`` for an
    unknown method or precision.
    """
    check_method(method)
    if precision not in AT_REST:
        raise BadAdapter(f"There is no precision {precision!r}; expected one of: {', '.join(AT_REST)}.")
    plan = plan or Plan()
    encode = base.tokenizer.encode
    cut = parts(encode, documents, plan, method)
    train_T, held_T = cut.train_T, cut.held_T
    test = excerpts(encode, cut.splits.test, plan.test_tokens, plan.window)
    tested = sum(len(excerpt.tokens) - 1 for excerpt in test)
    total = tested + len(AT_REST) * min(tested, _ROUNDING_TOKENS) // 2
    meter = Meter(total + work(plan, len(train_T), len(held_T)), progress)
    found, tensors = None, {}
    if method == "unigram":
        tensors = _counted(base, train_T, held_T, seed, plan)
    else:
        found = search(base.model, train_T, held_T, method, seed, plan, meter)
        tensors = found.tensors
    whole = Adapter(method, base.manifest.weights_sha256, tensors)
    gain, rounding_nats = _judged(base, whole, precision, test, meter)
    return Personal(
        adapter=rounded(whole, precision),
        precision=precision,
        gain=gain,
        rounding_nats=rounding_nats,
        unit=cut.splits.unit,
        documents=len(documents),
        train_tokens=len(train_T),
        validation_tokens=len(held_T),
        found=found,
        seconds=meter.seconds,
        base=base.manifest.name,
    )


def _judged(
    base: Loaded, whole: Adapter, precision: str, test: Sequence[Excerpt], meter: Meter
) -> tuple[Gain, dict[str, float]]:
    """Score base and rounded adapter on all held-out excerpts, and the other precisions on some of them."""

    def scored(adapter: Adapter, some: Sequence[Excerpt], what: str) -> list[Tensor]:
        with applied(base.model, adapter):
            nats = excerpt_nats(base.model, some)
        meter.add(sum(map(len, nats)) // 2, what)
        return nats

    before = excerpt_nats(base.model, test)
    meter.add(sum(map(len, before)) // 2, "judging the base")
    after = scored(rounded(whole, precision), test, "judging the adapter")
    gain = gain_between(test, before, after)
    every = max(1, sum(map(len, before)) // _ROUNDING_TOKENS)
    some, as_saved = list(test)[::every], after[::every]
    plain = as_saved if precision == "fp32" else scored(whole, some, "judging fp32")
    losses = {precision: as_saved, "fp32": plain}
    for other in AT_REST:
        if other not in losses:
            losses[other] = scored(rounded(whole, other), some, f"judging {other}")
    flat = {name: torch.cat(nats).double() for name, nats in losses.items()}
    return gain, {name: float((flat[name] - flat["fp32"]).mean()) for name in AT_REST}


def _counted(base: Loaded, train_T: Tensor, held_T: Tensor, seed: int, plan: Plan) -> dict[str, Tensor]:
    """Fit the sparse bias on the words of the training text, its strength on validation."""
    window = min(plan.window, len(train_T) - 1, len(held_T) - 1)
    budget = Budget(window, 1, window, validation=max(window, plan.validation_tokens))
    dealt = batches(train_T, budget, seed)
    windows_BT = torch.cat([next(dealt) for _ in range(min(plan.most_steps, len(train_T) // window))])
    tensors = unigram.direction(base.model, windows_BT)
    nats = unigram.losses(base.model, spread(held_T, budget), tensors)
    best = min(range(len(nats)), key=nats.__getitem__)
    return {"tokens": tensors["tokens"], "bias": tensors["bias"] * unigram.STRENGTHS[best]}
