"""Ternary from the first step: what is trained, what is multiplied by, and what is kept are told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch

from sharedllm.errors import BadRecipe
from sharedllm.model import Transformer
from sharedllm.training import Recipe, Step, Streams, hidden_matrices, train
from sharedllm.training.ternary import restored_model, straight_through, ternary_weights
from tests.unit.training.conftest import TINY, tiny_model

TERNARY = dataclasses.replace(TINY, weights="ternary")
TOKENS = torch.arange(48).view(2, 24) % 64
QUERIES = "blocks.0.attention.q.weight"


def forward(model: Transformer, recipe: Recipe) -> torch.Tensor:
    seen = straight_through(model, recipe.scale, recipe.per)
    logits: torch.Tensor = torch.func.functional_call(model, seen, (TOKENS,))
    return logits


@pytest.fixture(params=["row", "matrix"])
def rule(request: pytest.FixtureRequest) -> Recipe:
    return dataclasses.replace(TERNARY, per=request.param)


def test_the_gradient_passes_as_if_nothing_were_rounded(rule: Recipe) -> None:
    model = tiny_model()
    weight = dict(model.named_parameters())[QUERIES]
    upstream = torch.randn_like(weight)
    torch.autograd.backward(straight_through(model, rule.scale, rule.per)[QUERIES], upstream)
    assert weight.grad is not None
    assert torch.equal(weight.grad, upstream)


def test_a_forward_pass_multiplies_by_what_is_restored(rule: Recipe) -> None:
    model = tiny_model().eval()
    with torch.no_grad():
        assert torch.equal(forward(model, rule), restored_model(model, rule.scale, rule.per)(TOKENS))


def test_each_row_holds_one_magnitude(rule: Recipe) -> None:
    for weight in hidden_matrices(restored_model(tiny_model(), rule.scale, rule.per))[0]:
        for row in weight.detach().abs().flatten(0, -2):
            assert len(set(row.tolist())) <= 2


def test_a_matrix_may_share_one_magnitude() -> None:
    found = ternary_weights(tiny_model(), "mean", "matrix")["blocks.0.feedforward.gate_EFD"]
    assert [len(set(scales.flatten().tolist())) for scales in found[1]] == [1, 1, 1, 1]


def test_embeddings_routers_and_gains_stay_as_they_are() -> None:
    model = tiny_model()
    after = dict(restored_model(model, "median", "row").named_parameters())
    for weight in hidden_matrices(model)[1]:
        name = next(name for name, other in model.named_parameters() if other is weight)
        assert torch.equal(weight, after[name])


def test_the_latent_weights_are_what_is_trained(streams: Streams) -> None:
    model = tiny_model()
    before = [weight.detach().clone() for weight in hidden_matrices(model)[0]]
    train(model, streams, TERNARY, seed=0)
    for weight, old in zip(hidden_matrices(model)[0], before, strict=True):
        assert not torch.equal(weight, old)
        assert len(set(weight.flatten().tolist())) > weight.numel() // 2


def test_it_learns(streams: Streams) -> None:
    longer = dataclasses.replace(TERNARY, tokens=TERNARY.tokens_per_step * 60)
    report = train(tiny_model(), streams, longer, seed=0)
    assert report.losses_nats[-1] < 0.8 * report.losses_nats[0]


def interrupted_at(stop: int) -> Callable[[Step], None]:
    def interrupt(step: Step) -> None:
        if step.step == stop:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_interrupted_run_resumes_bit_for_bit(
    precision: Literal["fp32", "bf16"], streams: Streams, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(TERNARY, precision=precision)
    undisturbed = tiny_model()
    whole = train(undisturbed, streams, recipe, seed=1)
    with pytest.raises(KeyboardInterrupt):
        train(
            tiny_model(), streams, recipe, seed=1, checkpoint=tmp_path / "run.pt", on_step=interrupted_at(5)
        )
    resumed = tiny_model()
    report = train(resumed, streams, recipe, seed=1, checkpoint=tmp_path / "run.pt")
    assert report.losses_nats == whole.losses_nats
    assert all(map(torch.equal, resumed.state_dict().values(), undisturbed.state_dict().values()))


def test_a_checkpoint_of_the_full_run_is_refused(streams: Streams, tmp_path: Path) -> None:
    train(tiny_model(), streams, TINY, seed=1, checkpoint=tmp_path / "run.pt")
    with pytest.raises(BadRecipe, match=r"belongs to another run \(recipe "):
        train(tiny_model(), streams, TERNARY, seed=1, checkpoint=tmp_path / "run.pt")


def test_a_full_recipe_keeps_its_old_hash() -> None:
    assert not {"weights", "scale", "per", "precision"} & TINY.to_dict().keys()


def test_a_ternary_recipe_says_how_it_rounds() -> None:
    assert {"weights": "ternary", "scale": "mean", "per": "row"}.items() <= TERNARY.to_dict().items()


@pytest.mark.parametrize(("field", "value"), [("weights", "binary"), ("scale", "max"), ("per", "column")])
def test_a_rule_that_does_not_exist_is_refused(field: str, value: str) -> None:
    with pytest.raises(BadRecipe, match=f"A recipe's {field} is .* not '{value}'"):
        dataclasses.replace(TINY, **{field: value})  # type: ignore[arg-type]
