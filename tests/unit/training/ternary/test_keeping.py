"""A base that was trained ternary is kept as the file that was evaluated, and told from one that was not."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sharedllm import store
from sharedllm.cli import train as command
from sharedllm.model import Config, Tokenizer, Transformer, train_tokenizer
from sharedllm.training import THIRTY_M_TERNARY, TOY, TOY_TERNARY, Prepared, Recipe, Report, Streams, keep
from sharedllm.training.ternary import as_stored, at_rest, rows_not_ternary, twin_differences
from tests.unit.training.conftest import TINY

TEXT = "the cat sat on the mat and the dog sat on the cat. " * 20
TERNARY = dataclasses.replace(TINY, name="tiny-ternary", weights="ternary")
REPORT = Report((3.0, 2.0), 512, 1.0)


def tiny(tokenizer: Tokenizer) -> Transformer:
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
    return Transformer(config)


class Keeper:
    """Keeps tiny bases in a store of their own, and remembers which models were evaluated."""

    def __init__(self) -> None:
        self.evaluated: list[Transformer] = []
        self.tokenizer = train_tokenizer([TEXT], 280)

    def losses(self, model: Transformer, *_: object, **__: object) -> dict[str, float]:
        self.evaluated.append(model)
        return {"code": 2.0}

    def keep(self, recipe: Recipe) -> store.Loaded:
        streams = Streams({"text": torch.arange(64)})
        prepared = Prepared(tiny(self.tokenizer), self.tokenizer, streams, {"text": "0" * 64})
        keep(recipe.name, prepared, recipe, REPORT, seed=0)
        return store.load(recipe.name)


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    made = Keeper()
    # the package has a function of the module's name
    monkeypatch.setattr(sys.modules["sharedllm.training.base"], "domain_losses", made.losses)
    return made


def test_what_is_loaded_is_what_was_evaluated(keeper: Keeper) -> None:
    loaded = keeper.keep(TERNARY)
    stored = keeper.evaluated[0].state_dict()
    assert all(torch.equal(weight, stored[name]) for name, weight in loaded.model.state_dict().items())


def test_it_is_kept_as_a_ternary_file(keeper: Keeper) -> None:
    loaded = keeper.keep(TERNARY)
    assert (loaded.manifest.dtype, rows_not_ternary(loaded.model)) == ("ternary", 0)


def test_the_loss_without_rounded_embeddings_stands_beside(keeper: Keeper) -> None:
    loaded = keeper.keep(TERNARY)
    table = keeper.evaluated[1].embed.weight
    assert not torch.equal(table, loaded.model.embed.weight)
    assert loaded.manifest.provenance["test_bits_per_byte_fp32_embeddings"] == {"code": 2.0}


def test_what_is_no_hidden_matrix_is_kept_in_more_bits(keeper: Keeper) -> None:
    model = tiny(keeper.tokenizer)
    kept = as_stored(model, keeper.tokenizer, at_rest(model, "mean", "row"))
    for name, weight in kept.named_parameters():
        near = dict(model.named_parameters())[name]
        if name.endswith(("router.weight", "embed.weight")):
            assert torch.allclose(weight, near, atol=0.01 * float(near.detach().abs().max()))
        elif weight.dim() == 1:
            assert torch.equal(weight, near)


def test_twins_differ_in_nothing_but_their_weights(keeper: Keeper) -> None:
    one, other = keeper.keep(TINY).manifest, keeper.keep(TERNARY).manifest
    assert twin_differences(one, other) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": {**TERNARY.to_dict(), "batch": 9}}, ["batch"]),
        ({"seed": 1}, ["seed"]),
        ({"text_sha256": {"text": "1" * 64}}, ["text_sha256"]),
        ({"tokens": 3}, ["tokens"]),
    ],
)
def test_what_makes_two_bases_no_twins_is_named(
    keeper: Keeper, change: dict[str, Any], named: list[str]
) -> None:
    one, other = keeper.keep(TINY).manifest, keeper.keep(TERNARY).manifest
    changed = dataclasses.replace(other, provenance={**other.provenance, **change})
    assert twin_differences(one, changed) == named


def test_a_base_in_full_precision_has_no_ternary_row(keeper: Keeper) -> None:
    loaded = keeper.keep(TINY)
    assert rows_not_ternary(loaded.model) == sum(
        weight.numel() // weight.shape[-1]
        for name, weight in loaded.model.named_parameters()
        if weight.dim() > 1 and not name.startswith("embed") and "router" not in name
    )


@pytest.mark.parametrize(
    ("ternary", "named"),
    [(True, ("toy-ternary", TOY_TERNARY)), (False, ("toy", TOY))],
    ids=["ternary", "full"],
)
def test_the_command_asks_for_the_twin_by_name(
    ternary: bool, named: tuple[str, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(command, "_run", lambda *arguments: asked.extend(arguments))
    command.toy(ternary=ternary)
    assert tuple(asked[:2]) == named


def test_a_ternary_30m_takes_the_name_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(command, "_run", lambda *arguments: asked.extend(arguments))
    command.thirty_m(ternary=True)
    assert asked[:2] == ["30m", THIRTY_M_TERNARY]
