"""The sweep walks to the best rate, never falls over a diverging fit, and never fits twice.

``FakeFit`` stands in for ``fit``: its validation loss is a parabola in log10(lr), which is all that a sweep
looks at.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch

from sharedllm.adapters import CENTRES, Adapter, Budget, Fit, fit, fit_cached, sweep
from sharedllm.errors import BadRecipe

BUDGET = Budget(tokens=640, batch=4, window=16, evaluations=2, validation=96)
MODULE = importlib.import_module("sharedllm.adapters.sweep")  # the package re-exports a function of that name


class FakeFit:
    def __init__(self, best_lr: float, diverges_above: float = math.inf) -> None:
        self.best_lr, self.diverges_above, self.tried = best_lr, diverges_above, []

    def __call__(self, base, train, validation, method, lr, seed, budget, *, precision, progress) -> Fit:
        self.tried.append(lr)
        diverged = lr > self.diverges_above
        nats = math.nan if diverged else 3.0 + math.log10(lr / self.best_lr) ** 2
        adapter = Adapter(method, base.manifest.weights_sha256, {"x": torch.tensor([lr])})
        curve = ((0, 9.0), (10, nats))
        return Fit(adapter, (9.0,), curve, 0 if diverged else 10, 1, diverged, 0.5, 100.0, 1)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    return tmp_path


def swept(base, text_T, method="norm", **changes):
    return sweep(base, text_T[:300], text_T[300:], method, 0, BUDGET, **changes)


def test_three_fits_suffice_where_the_centre_is_best(dense, text_T, monkeypatch):
    fake = FakeFit(CENTRES["norm"])
    monkeypatch.setattr(MODULE, "fit", fake)
    result = swept(dense, text_T)
    assert result.lr == 3e-3
    assert fake.tried == pytest.approx([3e-3, 3e-3 / math.sqrt(10), 3e-3 * math.sqrt(10)], rel=1e-5)
    assert not result.at_edge


@pytest.mark.parametrize("best_lr", [3e-5, 3e-1])
def test_the_sweep_goes_on_while_the_best_is_at_the_edge(dense, text_T, monkeypatch, best_lr):
    monkeypatch.setattr(MODULE, "fit", FakeFit(best_lr))
    result = swept(dense, text_T, most=9)
    assert result.lr == pytest.approx(best_lr, rel=1e-4)
    assert not result.at_edge


def test_a_sweep_that_runs_out_of_fits_says_that_it_is_at_the_edge(dense, text_T, monkeypatch):
    fake = FakeFit(30.0)
    monkeypatch.setattr(MODULE, "fit", fake)
    result = swept(dense, text_T, most=4)
    assert result.at_edge
    assert len(fake.tried) == 4


def test_a_diverging_rate_is_recorded_as_infinite(dense, text_T, monkeypatch):
    monkeypatch.setattr(MODULE, "fit", FakeFit(3e-3, diverges_above=4e-3))
    result = swept(dense, text_T)
    assert [trial.nats == math.inf for trial in result.trials] == [False, False, True]
    assert result.lr == 3e-3


def test_where_all_diverge_the_sweep_goes_down(dense, text_T, monkeypatch):
    fake = FakeFit(3e-5, diverges_above=2e-4)
    monkeypatch.setattr(MODULE, "fit", fake)
    result = swept(dense, text_T, most=9)
    assert result.lr == pytest.approx(3e-5, rel=1e-4)


def test_a_second_sweep_fits_nothing(dense, text_T, monkeypatch):
    monkeypatch.setattr(MODULE, "fit", FakeFit(3e-3))
    first = swept(dense, text_T)
    monkeypatch.setattr(MODULE, "fit", None)
    second = swept(dense, text_T)
    assert second.trials == first.trials
    assert torch.equal(second.best.adapter.tensors["x"], first.best.adapter.tensors["x"])


def test_only_the_best_adapter_is_kept(dense, text_T, monkeypatch, store):
    monkeypatch.setattr(MODULE, "fit", FakeFit(3e-3))
    swept(dense, text_T)
    assert len(list(store.rglob("adapter.safetensors"))) == 1
    assert len(list(store.rglob("trials/*/fit.json"))) == 3


def test_a_best_fit_lost_between_trial_and_keeping_is_made_again(dense, text_T, monkeypatch, store):
    fake = FakeFit(3e-3)
    monkeypatch.setattr(MODULE, "fit", fake)
    swept(dense, text_T)
    for path in store.rglob("fits/*/*"):
        path.unlink()
    next(store.rglob("fits/*")).rmdir()
    assert swept(dense, text_T).best.adapter.tensors["x"].tolist() == pytest.approx([3e-3])
    assert len(fake.tried) == 4


def test_a_real_sweep_of_gains_improves_on_the_base(dense, text_T):
    result = swept(dense, text_T, most=3)
    assert result.best.best_nats < result.best.validation_nats[0][1]


@pytest.mark.parametrize(
    ("method", "lr"), [("norm", 1e-2), ("lora", 1e-2), ("full", 1e-3), ("unigram", None)]
)
def test_a_cached_fit_is_the_fit(dense, text_T, method, lr):
    made = fit(dense, text_T[:300], text_T[300:], method, lr, 0, BUDGET)
    for _ in range(2):
        kept = fit_cached(dense, text_T[:300], text_T[300:], method, lr, 0, BUDGET)
        assert (kept.train_nats, kept.validation_nats) == (made.train_nats, made.validation_nats)
        assert all(
            torch.equal(kept.adapter.tensors[n], made.adapter.tensors[n]) for n in made.adapter.tensors
        )


def test_a_cached_fit_is_read_not_made(dense, text_T, monkeypatch):
    arguments = (dense, text_T[:300], text_T[300:], "norm", 1e-2, 0, BUDGET)
    fit_cached(*arguments)
    monkeypatch.setattr(MODULE, "fit", None)
    fit_cached(*arguments)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"lr": 2e-2}, {"budget": Budget(1280, 4, 16)}, {"precision": "bf16"}, {"more": True}],
)
def test_another_input_is_another_fit(dense, text_T, monkeypatch, change):
    fake = FakeFit(3e-3)
    monkeypatch.setattr(MODULE, "fit", fake)
    given = {"method": "norm", "lr": 1e-2, "seed": 0, "budget": BUDGET, "precision": "fp32"}
    fit_cached(dense, text_T[:300], text_T[300:], **given)
    stop = 301 if change.pop("more", False) else 300
    fit_cached(dense, text_T[:stop], text_T[300:], **given | change)
    assert len(fake.tried) == 2


def test_a_list_of_tokens_and_a_tensor_share_a_fit(dense, text_T, monkeypatch):
    fake = FakeFit(3e-3)
    monkeypatch.setattr(MODULE, "fit", fake)
    fit_cached(dense, text_T[:300], text_T[300:], "norm", 1e-2, 0, BUDGET)
    fit_cached(dense, text_T[:300].tolist(), text_T[300:].tolist(), "norm", 1e-2, 0, BUDGET)
    assert len(fake.tried) == 1


def test_a_fit_that_diverged_survives_the_store(dense, text_T, monkeypatch):
    monkeypatch.setattr(MODULE, "fit", FakeFit(3e-3, diverges_above=1e-9))
    kept = fit_cached(dense, text_T[:300], text_T[300:], "norm", 1e-2, 0, BUDGET)
    assert kept.diverged
    assert kept.validation_nats == ((0, 9.0), (10, math.inf))


@pytest.mark.parametrize(("method", "most"), [("unigram", 7), ("norm", 2)])
def test_a_sweep_of_nothing_is_refused(dense, text_T, method, most):
    with pytest.raises(BadRecipe, match="sweep"):
        swept(dense, text_T, method, most=most)
