"""Whole tiny models through every scheme: what each makes better, that it repeats, and what it refuses."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from sharedllm.errors import BadRecipe
from sharedllm.model import Transformer, token_nats
from sharedllm.store import Loaded
from sharedllm.store.ternary import TernaryTensor
from sharedllm.training import Streams
from sharedllm.training.calibrated import SCHEMES, Effort, Quantised, Texts, quantise
from tests.unit.training.calibrated.tiny import QUICK

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def found_again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, found_again: Path) -> None:
    """Let what one test made be found again by the next, as bets do."""
    monkeypatch.setenv("SHAREDLLM_HOME", str(found_again))


def _made(base: Loaded, texts: Texts, scheme: str, effort: Effort = QUICK) -> Quantised:
    return quantise(base, texts, scheme, effort)


def _nats(base: Loaded, made: Quantised, texts: Texts) -> float:
    """The loss on validation text of the model that these weights make."""
    model = Transformer(base.model.config)
    restored = {n: w if isinstance(w, torch.Tensor) else w.restored() for n, w in made.weights.items()}
    model.load_state_dict(restored)
    with torch.no_grad():
        return float(token_nats(model.eval(), texts.windows("validation", 0, 5, 16, 32)).mean())


def test_calibration_loses_less_than_rounding(base: Loaded, texts: Texts) -> None:
    losses = {s: _nats(base, _made(base, texts, s), texts) for s in ("rounded", "fed-back")}
    assert losses["fed-back"] < losses["rounded"]


@pytest.mark.parametrize("scheme", ["repaired", "rescaled", "calibrated"])
def test_learning_brings_a_model_nearer_to_the_full_one(base: Loaded, texts: Texts, scheme: str) -> None:
    curve = [nats for _, nats in _made(base, texts, scheme).report["validation_nats"]]
    assert min(curve) < curve[0]


def test_learning_that_only_harms_changes_nothing(base: Loaded, texts: Texts) -> None:
    harmful = dataclasses.replace(QUICK, trits=dataclasses.replace(QUICK.trits, tokens=512, rates=(10.0,)))
    assert _bits(_made(base, texts, "calibrated", harmful)) == _bits(_made(base, texts, "fed-back"))


def test_two_planes_lose_less_than_one(base: Loaded, texts: Texts) -> None:
    losses = {s: _nats(base, _made(base, texts, s), texts) for s in ("fed-back", "planes-fed-back")}
    assert losses["planes-fed-back"] < losses["fed-back"]


def test_bits_count_trits_and_scales(base: Loaded, texts: Texts) -> None:
    # a scale of 16 bits for 16 weights, in each plane
    finer = dataclasses.replace(QUICK, group=16)
    assert _made(base, texts, "rounded", finer).bits_per_weight == pytest.approx(2.6, abs=0.01)
    assert _made(base, texts, "planes-rounded", finer).bits_per_weight == pytest.approx(5.2, abs=0.02)


def test_only_hidden_matrices_and_gains_change(base: Loaded, texts: Texts) -> None:
    made = _made(base, texts, "calibrated")
    before = base.model.state_dict()
    changed = {name for name, weight in made.weights.items() if not _same(weight, before[name])}
    routers = {name for name in before if name.endswith("router.weight")}
    assert changed == set(before) - {"embed.weight"} - routers


def _same(weight: object, before: torch.Tensor) -> bool:
    return isinstance(weight, torch.Tensor) and torch.equal(weight, before)


def test_learning_scales_leaves_the_trits(base: Loaded, texts: Texts) -> None:
    before, after = (_made(base, texts, scheme).matrices() for scheme in ("fed-back", "rescaled"))
    assert all(torch.equal(before[name].trits, weight.trits) for name, weight in after.items())


def test_the_base_stays_as_it_was(base: Loaded, texts: Texts) -> None:
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    _made(base, texts, "calibrated")
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.state_dict().items())


def test_the_same_inputs_give_the_same_bits(
    base: Loaded, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _made(base, texts, "calibrated")
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "another"))
    assert _bits(first) == _bits(_made(base, texts, "calibrated"))


def _bits(made: Quantised) -> list[bytes]:
    return [
        (w.trits if isinstance(w, TernaryTensor) else w).contiguous().numpy().tobytes()
        for w in made.weights.values()
    ]


def test_a_killed_calibration_goes_on_at_its_last_layer(
    base: Loaded, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = _bits(_made(base, texts, "fed-back"))
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "another"))

    def kill(what: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantise(base, texts, "fed-back", QUICK, progress=kill)
    (waiting,) = (tmp_path / "another" / "calibrating").iterdir()
    assert [path.name for path in waiting.iterdir()] == ["layer-000.safetensors"]
    assert _bits(_made(base, texts, "fed-back")) == undisturbed


def test_nothing_is_left_beside_a_finished_calibration(
    base: Loaded, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    _made(base, texts, "repaired")
    assert not list((tmp_path / "calibrating").iterdir())


def test_an_unknown_scheme_is_refused(base: Loaded, texts: Texts) -> None:
    with pytest.raises(BadRecipe, match="no scheme 'magic'; there are rounded"):
        _made(base, texts, "magic")


def test_too_little_text_is_refused(base: Loaded, texts: Texts) -> None:
    short = Texts(Streams({"up": torch.arange(20)}), texts.validation)
    with pytest.raises(BadRecipe, match="not longer than a window of 32"):
        _made(base, short, "fed-back")


def test_a_damaged_model_is_refused(base: Loaded, texts: Texts) -> None:
    with torch.no_grad():
        model = Transformer(base.model.config)
        model.load_state_dict(base.model.state_dict())
        model.blocks[0].attention_norm.weight[0] = torch.nan  # type: ignore[union-attr,index]
    manifest = dataclasses.replace(base.manifest, weights_sha256="2" * 64)
    damaged = Loaded(model, base.tokenizer, manifest)
    with pytest.raises(BadRecipe, match="NaN or infinity"):
        _made(damaged, texts, "fed-back")


def test_every_scheme_is_described() -> None:
    described = sys.modules[quantise.__module__].__doc__ or ""
    assert all(f"``{name}``" in described for name in SCHEMES)
