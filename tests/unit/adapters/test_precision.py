"""An adapter at rest in fewer bits: what comes back, what it says of itself, and what is refused."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from sharedllm.adapters import Adapter, header, read, rounded, write
from sharedllm.errors import BadAdapter

DELTA_GD = torch.linspace(-0.3, 0.7, 64).view(2, 32) ** 3


def adapter(tensor: torch.Tensor = DELTA_GD) -> Adapter:
    return Adapter("norm", "b", {"norm.weight": tensor})


def written(path, tensors, **metadata):
    says = {"schema": "sharedllm-adapter/1", "method": "norm", "base_sha256": "b"} | metadata
    path.write_bytes(safetensors.torch.save(tensors, says))
    return path


def test_fp32_keeps_every_bit(tmp_path):
    write(tmp_path / "a", adapter(), "fp32")
    assert torch.equal(read(tmp_path / "a", "b").tensors["norm.weight"], DELTA_GD)


def test_fp16_comes_back_as_fp32_numbers_that_fp16_has(tmp_path):
    write(tmp_path / "a", adapter(), "fp16")
    back = read(tmp_path / "a", "b").tensors["norm.weight"]
    assert back.dtype == torch.float32
    assert torch.equal(back, DELTA_GD.half().float())


def test_int8_is_off_by_at_most_half_a_step_of_each_vectors_own_scale(tmp_path):
    write(tmp_path / "a", adapter(), "int8")
    back = read(tmp_path / "a", "b").tensors["norm.weight"]
    step_G1 = DELTA_GD.abs().amax(-1, keepdim=True) / 127
    assert bool(((back - DELTA_GD).abs() <= 0.5001 * step_G1).all())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_rounding_in_memory_is_what_the_file_does(tmp_path, precision):
    write(tmp_path / "a", adapter(), precision)
    back, here = read(tmp_path / "a", "b"), rounded(adapter(), precision)
    assert torch.equal(back.tensors["norm.weight"], here.tensors["norm.weight"])


def test_a_vector_of_zeros_stays_zero():
    assert not rounded(adapter(torch.zeros(2, 4)), "int8").tensors["norm.weight"].any()


def test_an_empty_tensor_survives():
    assert rounded(adapter(torch.zeros(2, 0)), "int8").tensors["norm.weight"].shape == (2, 0)


def test_whole_numbers_are_left_as_they_are():
    tokens = torch.tensor([5, 49_151], dtype=torch.int32)
    given = Adapter("unigram", "b", {"tokens": tokens, "bias": torch.tensor([1.0, -2.0])})
    assert torch.equal(rounded(given, "int8").tensors["tokens"], tokens)


def test_a_header_says_what_the_file_is_without_its_numbers(tmp_path):
    write(tmp_path / "a", adapter(), "int8", {"gain_nats": 0.25})
    said = header(tmp_path / "a")
    assert (said.method, said.base_sha256, said.precision) == ("norm", "b", "int8")
    assert said.about == {"gain_nats": 0.25}
    assert said.n_bytes == (tmp_path / "a").stat().st_size


def test_a_number_beyond_fp16_is_refused():
    with pytest.raises(BadAdapter, match="fp16 ends at 65,504"):
        rounded(adapter(torch.tensor([1e5])), "fp16")


def test_an_unknown_precision_is_refused_with_the_list(tmp_path):
    with pytest.raises(BadAdapter, match="fp32, fp16, int8"):
        write(tmp_path / "a", adapter(), "int4")


def test_a_file_of_an_unknown_precision_is_refused(tmp_path):
    path = written(tmp_path / "a", {"norm.weight": DELTA_GD}, precision="int4")
    with pytest.raises(BadAdapter, match="no precision 'int4'"):
        read(path, "b")


def test_a_file_whose_numbers_are_not_of_its_precision_is_refused(tmp_path):
    path = written(tmp_path / "a", {"norm.weight": DELTA_GD.double()}, precision="fp16")
    with pytest.raises(BadAdapter, match=r"norm\.weight is torch\.float64"):
        read(path, "b")


@pytest.mark.parametrize(
    "scale", [None, torch.ones(2), torch.ones(2, 1, dtype=torch.float64), torch.ones(3, 1)]
)
def test_int8_without_one_scale_per_vector_is_refused(tmp_path, scale):
    tensors = {"norm.weight": torch.ones(2, 32, dtype=torch.int8)}
    tensors |= {} if scale is None else {"norm.weight.scale": scale}
    with pytest.raises(BadAdapter, match="one fp32 scale per vector"):
        read(written(tmp_path / "a", tensors, precision="int8"), "b")


def test_a_scale_without_its_steps_is_refused(tmp_path):
    path = written(tmp_path / "a", {"x.scale": torch.ones(2, 1)}, precision="int8")
    with pytest.raises(BadAdapter, match="without the steps"):
        read(path, "b")


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(tmp_path, scale):
    tensors = {
        "x": torch.ones(1, 2, dtype=torch.int8),
        "x.scale": torch.full((1, 1), scale),
    }
    with pytest.raises(BadAdapter, match="NaN or infinity in x"):
        read(written(tmp_path / "a", tensors, precision="int8"), "b")


@pytest.mark.parametrize("about", ["[]", "{", '"x"', "[" * 100_000, json.dumps({"x": "y" * 70_000})])
def test_a_description_that_is_none_is_refused(tmp_path, about):
    path = written(tmp_path / "a", {"norm.weight": DELTA_GD}, about=about)
    with pytest.raises(BadAdapter, match="whole safetensors"):
        header(path)
