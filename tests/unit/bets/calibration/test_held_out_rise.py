"""By how much one form of a base is worse than another, per byte of held-out text."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sharedllm.bets.calibration import HeldOut, plain, stepped
from sharedllm.bets.calibration.reading import _Text
from sharedllm.bets.personal import scored
from sharedllm.corpus import Excerpt
from sharedllm.model import Config, Transformer
from sharedllm.store import Loaded, Manifest

CONFIG = Config(
    vocab_size=64, width=32, layers=2, heads=2, kv_heads=1, head_width=16, hidden=48, experts=3, context=64
)


def _model(seed: int) -> Loaded:
    torch.manual_seed(seed)
    manifest = Manifest("tiny", CONFIG, "0" * 64, f"{seed:064d}", {}, "float32", "Apache-2.0", {})
    return Loaded(Transformer(CONFIG).eval().requires_grad_(False), None, manifest)  # type: ignore[arg-type]


def _text(seed: int, documents: int) -> _Text:
    chance = np.random.default_rng(seed)
    cut = [Excerpt(f"d{n}", tuple(chance.integers(64, size=17).tolist())) for n in range(documents)]
    return _Text(cut, np.arange(documents), np.full(documents, 40.0))


@pytest.fixture
def held_out() -> HeldOut:
    return HeldOut({"one": _text(0, 2), "two": _text(1, 6)}, resamples=200)


def test_bits_per_byte_are_nats_over_bytes(held_out: HeldOut) -> None:
    text = _text(0, 2)
    by_hand = scored(_model(0), text.excerpts).sum() / math.log(2) / 80.0
    assert held_out.bits(_model(0))["one"] == pytest.approx(by_hand)


def test_a_model_is_no_worse_than_itself(held_out: HeldOut) -> None:
    mean = held_out.rise(_model(0), _model(0)).mean
    assert (mean.low, mean.estimate, mean.high) == (0.0, 0.0, 0.0)


def test_domains_count_alike_however_many_documents_they_have(held_out: HeldOut) -> None:
    rise = held_out.rise(_model(1), _model(0))
    parts = [interval.estimate for interval in rise.by_domain.values()]
    assert rise.mean.estimate == pytest.approx(sum(parts) / 2)


def test_the_interval_holds_the_estimate(held_out: HeldOut) -> None:
    mean = held_out.rise(_model(1), _model(0)).mean
    assert mean.low <= mean.estimate <= mean.high


def test_every_document_is_counted(held_out: HeldOut) -> None:
    assert held_out.documents == 8


def test_a_weight_of_int8_takes_its_byte_and_its_share_of_a_scale() -> None:
    base = _model(0)
    inputs = [w.shape[-1] for n, w in base.model.named_parameters() if "blocks" in n and w.ndim > 1]
    assert 8 + 16 / max(inputs) <= stepped(base, "int8").bits_per_weight <= 8 + 16 / min(inputs)


def test_the_base_itself_takes_what_its_format_takes() -> None:
    base = _model(0)
    numbers = sum(weight.numel() for weight in base.model.parameters())
    assert (plain(base, "fp16").n_bytes, plain(base, "fp32").n_bytes) == (2 * numbers, 4 * numbers)


def test_a_form_does_not_change_the_base() -> None:
    base = _model(0)
    before = [weight.clone() for weight in base.model.parameters()]
    stepped(base, "int4")
    assert all(map(torch.equal, before, base.model.parameters()))
