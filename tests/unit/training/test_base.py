"""Evaluation, budgets, specialists and the command line, on tiny models and made-up text."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from sharedllm import store
from sharedllm.cli import train as command
from sharedllm.corpus import Document, Domain
from sharedllm.errors import BadModelFile, BadRecipe, UnknownName
from sharedllm.model import Config, Tokenizer, Transformer, train_tokenizer
from sharedllm.training import (
    Prepared,
    Recipe,
    Step,
    Streams,
    base,
    budget_for,
    encode,
    held_out,
    live,
    load_specialist,
    overall,
    prepare,
    specialist,
)

TEXT = "the cat sat on the mat and the dog sat on the cat. " * 20


def document(name: str, text: str = TEXT) -> Document:
    return Document(
        name, name, text, "made up", len(text.encode()), hashlib.sha256(text.encode()).hexdigest()
    )


@pytest.fixture
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT], 280)


@pytest.fixture
def loaded(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Loaded:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    torch.manual_seed(0)
    config = Config(
        vocab_size=tokenizer.vocab_size,
        width=32,
        layers=1,
        heads=2,
        kv_heads=2,
        head_width=16,
        hidden=16,
        experts=2,
        context=64,
    )
    store.save("tiny", Transformer(config), tokenizer, licence="Apache-2.0", provenance={})
    return store.load("tiny")


@pytest.fixture
def domain() -> Domain:
    return Domain("cats", (document("a"),), (document("b"),), (document("c"),), "Apache-2.0")


def test_an_untrained_model_is_as_good_as_chance(loaded: store.Loaded) -> None:
    with torch.no_grad():
        loaded.model.embed.weight.zero_()
    (loss,) = held_out(loaded.model, loaded.tokenizer, [document("a")], window=32)
    assert loss.nats == pytest.approx(loss.tokens * math.log(loaded.model.config.vocab_size), rel=1e-5)


def test_every_token_of_a_document_is_scored(loaded: store.Loaded) -> None:
    (loss,) = held_out(loaded.model, loaded.tokenizer, [document("a")], window=32)
    assert (loss.tokens, loss.n_bytes) == (len(loaded.tokenizer.encode(TEXT)), len(TEXT))


def test_bits_per_byte_of_two_documents_weigh_their_bytes(loaded: store.Loaded) -> None:
    losses = held_out(loaded.model, loaded.tokenizer, [document("a"), document("b", TEXT[:200])], window=32)
    weighted = sum(loss.bits_per_byte * loss.n_bytes for loss in losses) / sum(
        loss.n_bytes for loss in losses
    )
    assert overall(losses) == pytest.approx(weighted)


def test_documents_are_kept_apart_by_a_token(tokenizer: Tokenizer) -> None:
    ids = encode(tokenizer, [document("a", "cat"), document("b", "dog")])
    assert (ids == tokenizer.bos).nonzero().flatten().tolist() == [0, 1 + len(tokenizer.encode("cat"))]


def prepared(model: Transformer, streams: Streams) -> Prepared:
    return Prepared(model, train_tokenizer([TEXT], 280), streams, {})


def test_a_time_budget_becomes_whole_steps(
    recipe: Recipe, streams: Streams, new_model: Callable[..., Transformer]
) -> None:
    ticks = itertools.count(0.0, 0.5)  # each step takes half a second on this clock
    budgeted = budget_for(10.2, prepared(new_model(), streams), recipe, clock=lambda: next(ticks))
    assert budgeted.tokens == 20 * recipe.tokens_per_step


def test_measuring_the_speed_leaves_the_model_as_it_was(
    recipe: Recipe, streams: Streams, new_model: Callable[..., Transformer]
) -> None:
    model = new_model()
    budget_for(1e6, prepared(model, streams), recipe)
    assert all(map(torch.equal, model.state_dict().values(), new_model().state_dict().values()))


def test_a_time_budget_below_one_step_is_refused(
    recipe: Recipe, streams: Streams, new_model: Callable[..., Transformer]
) -> None:
    ticks = itertools.count(0.0, 5.0)
    with pytest.raises(BadRecipe, match="give more time"):
        budget_for(1.0, prepared(new_model(), streams), recipe, clock=lambda: next(ticks))


def test_a_specialist_is_trained_once(loaded: store.Loaded, domain: Domain, recipe: Recipe) -> None:
    steps: list[Step] = []
    first = specialist(loaded, domain, recipe, seed=0, on_step=steps.append)
    trained = len(steps)
    assert specialist(loaded, domain, recipe, seed=0, on_step=steps.append) == first
    assert len(steps) == trained == recipe.steps


def test_a_specialist_differs_from_its_base_and_spares_it(
    loaded: store.Loaded, domain: Domain, recipe: Recipe
) -> None:
    before = loaded.model.embed.weight.clone()
    trained = load_specialist(specialist(loaded, domain, recipe, seed=0), loaded)
    assert torch.equal(loaded.model.embed.weight, before)
    assert not torch.equal(trained.embed.weight, before)


def test_a_specialist_knows_its_domain_better(loaded: store.Loaded, domain: Domain, recipe: Recipe) -> None:
    longer = dataclasses.replace(recipe, tokens=recipe.tokens_per_step * 40)
    trained = load_specialist(specialist(loaded, domain, longer, seed=0), loaded)
    ours, base_s = (
        overall(held_out(model, loaded.tokenizer, domain.test, window=32))
        for model in (trained, loaded.model)
    )
    assert ours < base_s


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"recipe": {"lr": 0.03}}, {"domain": {"train": (document("z", "another"),)}}]
)
def test_another_specialist_is_kept_apart(
    other: dict[str, object], loaded: store.Loaded, domain: Domain, recipe: Recipe
) -> None:
    changed_recipe = dataclasses.replace(recipe, **other.get("recipe", {}))  # type: ignore[arg-type]
    changed_domain = dataclasses.replace(domain, **other.get("domain", {}))  # type: ignore[arg-type]
    seed = int(other.get("seed", 0))  # type: ignore[call-overload]
    first = specialist(loaded, domain, recipe, seed=0)
    assert specialist(loaded, changed_domain, changed_recipe, seed=seed) != first


def test_a_specialist_of_another_base_is_refused(
    loaded: store.Loaded, domain: Domain, recipe: Recipe
) -> None:
    path = specialist(loaded, domain, recipe, seed=0)
    key = json.loads((path / "key.json").read_bytes())
    (path / "key.json").write_text(json.dumps(key | {"weights": "0" * 64}))
    with pytest.raises(BadModelFile, match="train it again from this base"):
        load_specialist(path, loaded)


def test_a_damaged_specialist_is_a_sentence(loaded: store.Loaded, domain: Domain, recipe: Recipe) -> None:
    path = specialist(loaded, domain, recipe, seed=0)
    whole = (path / "weights.safetensors").read_bytes()
    (path / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadModelFile, match="no whole specialist"):
        load_specialist(path, loaded)


def test_an_unknown_base_gets_the_list_of_recipes() -> None:
    with pytest.raises(UnknownName, match="toy, toy-ternary, 30m"):
        base("medium")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_a_sentence() -> None:
    with pytest.raises(BadRecipe, match="--device cpu"):
        prepare("toy", seed=0, device="cuda")


def test_progress_says_how_far_how_fast_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    with live(Console(force_terminal=False, width=40), "tiny") as on_step:
        on_step(Step(step=4, steps=10, loss_nats=2.5, tokens=500, seconds=50.0, tok_per_s=10.0))
    assert capsys.readouterr().out == "tiny: step 5/10 · loss 2.500 nats/token · 10 tok/s · 0:50 left\n"


def test_two_budgets_are_refused() -> None:
    with pytest.raises(BadRecipe, match="give one of them"):
        command.toy(minutes=1.0, tokens=1000)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(BadRecipe, match="cpu, cuda or auto"):
        command.toy(device="tpu")


def test_a_measured_budget_is_measured_once(
    recipe: Recipe, streams: Streams, new_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "budget.json").write_text('{"minutes":2.0,"tokens":512}')
    budgeted = command.budgeted(recipe, 2.0, None, folder, prepared(new_model(), streams))
    assert budgeted.tokens == 512


def test_resuming_with_another_time_budget_is_refused(
    recipe: Recipe, streams: Streams, new_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    (tmp_path / "budget.json").write_text('{"minutes":2.0,"tokens":512}')
    with pytest.raises(BadRecipe, match="was given 2 minutes, now 3"):
        command.budgeted(recipe, 3.0, None, tmp_path, prepared(new_model(), streams))
