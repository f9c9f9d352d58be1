"""The file holds what was put in, each part in its form, and says what it spends its bytes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import safetensors
import torch

from sharedllm.errors import BadModelFile
from sharedllm.model import Tokenizer, Transformer
from sharedllm.store import ternary
from sharedllm.store.ternary import SteppedTensor, TernaryTensor, ternarise, two_planes
from tests.unit.store.ternary.conftest import EXPERTS, written

GATE, ROUTER = "blocks.0.feedforward.gate_EFD", "blocks.0.feedforward.router.weight"


def test_a_file_says_what_model_it_is(path: Path, tokenizer: Tokenizer) -> None:
    opened = ternary.read(path)
    assert (opened.config, opened.licence, opened.provenance) == (EXPERTS, "CC0-1.0", {"seed": 0})
    assert opened.tokenizer_bytes() == tokenizer.to_bytes()


def test_a_file_holds_every_weight_of_the_model(path: Path, mixture: Transformer) -> None:
    expected = {name: tuple(weight.shape) for name, weight in mixture.state_dict().items()}
    assert ternary.read(path).shapes == expected


def test_hidden_weights_are_the_rounded_ones_bit_for_bit(path: Path, mixture: Transformer) -> None:
    opened = ternary.read(path)
    for name, weight in mixture.state_dict().items():
        if ternary.is_hidden(name):
            assert torch.equal(
                opened.restored(name), ternary.restored(*ternarise(weight, scale="optimal"))
            ), name


def test_gains_are_kept_in_full(path: Path, mixture: Transformer) -> None:
    opened = ternary.read(path)
    assert all(torch.equal(opened.restored(name), gain) for name, gain in mixture.gains().items())


def test_a_router_is_kept_as_fp16(path: Path, mixture: Transformer) -> None:
    router = mixture.state_dict()[ROUTER]
    assert torch.equal(ternary.read(path).restored(ROUTER), router.half().float())


@pytest.mark.parametrize(("table", "steps"), [("int8", 127), ("int4", 7)])
def test_a_table_is_half_a_step_off_at_most(
    table: ternary.Table, steps: int, tmp_path: Path, mixture: Transformer, tokenizer: Tokenizer
) -> None:
    opened = ternary.read(written(tmp_path / "x", mixture, tokenizer, table=table))
    weight = mixture.embed.weight.detach()
    most = weight.abs().amax(dim=1, keepdim=True)
    assert isinstance(opened["embed.weight"], SteppedTensor)
    assert bool(((opened.restored("embed.weight") - weight).abs() <= 0.51 * most / steps).all())


def test_rows_that_int4s_groups_do_not_divide_have_one_scale(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = Transformer(dataclasses.replace(EXPERTS, width=40))
    embed = ternary.read(written(tmp_path / "x", model, tokenizer, table="int4"))["embed.weight"]
    assert isinstance(embed, SteppedTensor)
    assert embed.scales.shape == (300, 1)


def test_a_table_can_be_kept_in_full(tmp_path: Path, mixture: Transformer, tokenizer: Tokenizer) -> None:
    opened = ternary.read(written(tmp_path / "x", mixture, tokenizer, table="fp32"))
    assert torch.equal(opened.restored("embed.weight"), mixture.embed.weight)


def test_a_table_can_be_ternary_too(tmp_path: Path, mixture: Transformer, tokenizer: Tokenizer) -> None:
    weights = ternary.rounded(mixture.state_dict())
    pair = ternarise(mixture.embed.weight, scale="optimal", group=16)
    weights["embed.weight"] = TernaryTensor.of(pair)
    opened = ternary.read(written(tmp_path / "x", mixture, tokenizer, weights))
    assert torch.equal(opened.restored("embed.weight"), ternary.restored(*pair))


def test_two_planes_are_added_up(tmp_path: Path, mixture: Transformer, tokenizer: Tokenizer) -> None:
    weights = ternary.rounded(mixture.state_dict(), planes=2, group=16)
    opened = ternary.read(written(tmp_path / "x", mixture, tokenizer, weights))
    first, second = two_planes(mixture.state_dict()[GATE], group=16)
    weight = opened[GATE]
    assert isinstance(weight, TernaryTensor)
    assert weight.planes == 2
    assert torch.equal(opened.restored(GATE), ternary.restored(*first) + ternary.restored(*second))


def test_a_kernel_reads_the_trits_without_restoring_them(path: Path, mixture: Transformer) -> None:
    weight = ternary.read(path)[GATE]
    assert isinstance(weight, TernaryTensor)
    trits, scales = ternarise(mixture.state_dict()[GATE], scale="optimal")
    assert torch.equal(weight.unpacked()[0], trits)
    assert torch.equal(weight.scales[0].float(), scales)


def test_the_same_model_gives_the_same_bytes(
    path: Path, tmp_path: Path, mixture: Transformer, tokenizer: Tokenizer
) -> None:
    assert written(tmp_path / "again", mixture, tokenizer).read_bytes() == path.read_bytes()


def test_the_container_opens_in_the_reference_implementation(path: Path) -> None:
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["format"] == ternary.SCHEMA
        assert torch.equal(file.get_tensor(f"{GATE}.trits"), ternary.read(path)[GATE].trits)  # type: ignore[union-attr]


def test_the_parts_add_up_to_the_file(path: Path) -> None:
    parts = {part.name: part for part in ternary.inventory(ternary.read(path))}
    assert sum(part.n_bytes for part in parts.values()) == path.stat().st_size
    n = parts["trits"].weights
    assert parts["trits"].n_bytes == pytest.approx(n / 5, abs=7)
    assert parts["embedding"].n_bytes == 300 * 32 + 2 * 300


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_gain_that_is_no_number_is_not_written(
    number: float, tmp_path: Path, mixture: Transformer, tokenizer: Tokenizer
) -> None:
    with torch.no_grad():
        mixture.norm.weight[3] = number
    with pytest.raises(BadModelFile, match=r"Tensor norm\.weight holds NaN"):
        written(tmp_path / "x", mixture, tokenizer)


def test_a_router_beyond_fp16_is_not_written(
    tmp_path: Path, mixture: Transformer, tokenizer: Tokenizer
) -> None:
    weights = {**ternary.rounded(mixture.state_dict()), ROUTER: torch.full((3, 32), 1e6)}
    with pytest.raises(BadModelFile, match="beyond fp16"):
        written(tmp_path / "x", mixture, tokenizer, weights)
