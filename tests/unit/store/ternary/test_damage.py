"""Every region of a file, every bit of its parts, every length: noticed, and named in a sentence."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sharedllm import store
from sharedllm.errors import BadModelFile
from sharedllm.store import safetensors, ternary
from sharedllm.store.ternary import file as ternary_file


def flipped(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def regions(path: Path) -> dict[str, tuple[int, int]]:
    """Every byte of the file belongs to one of these."""
    entries = safetensors.read_header(path)
    start = min(entry.start for entry in entries.values())
    return {"header": (0, start)} | {name: (entry.start, entry.stop) for name, entry in entries.items()}


def test_regions_cover_the_file(path: Path) -> None:
    spans = sorted(regions(path).values())
    assert spans[0][0] == 0
    assert spans[-1][1] == path.stat().st_size
    assert all(first[1] == second[0] for first, second in itertools.pairwise(spans))


def test_a_bit_flipped_in_any_tensor_names_it(path: Path) -> None:
    for name, (start, stop) in regions(path).items():
        if name == "header":
            continue
        for at, bit in ((start, 0), ((start + stop) // 2, 4), (stop - 1, 7)):
            flipped(path, at, bit)
            with pytest.raises(BadModelFile) as caught:
                ternary.read(path).check()
            flipped(path, at, bit)
            assert f"Tensor {name} of {path} is damaged" in str(caught.value)


def test_a_bit_flipped_anywhere_in_the_header_is_noticed(path: Path) -> None:
    for at in {*range(120), *range(120, regions(path)["header"][1], 7)}:
        flipped(path, at, at % 8)
        with pytest.raises(BadModelFile, match="header"):
            ternary.read(path)
        flipped(path, at, at % 8)


def test_truncation_anywhere_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    stops = {stop for _, stop in regions(path).values()} - {len(whole)}
    for length in sorted({0, 1, 7, 8, 9, 50, len(whole) - 1, *stops, *(stop - 1 for stop in stops)}):
        path.write_bytes(whole[:length])
        with pytest.raises(BadModelFile):
            ternary.read(path).check()


def test_a_byte_too_many_is_noticed(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BadModelFile, match="but the file ends at"):
        ternary.read(path)


def forged(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Rewrite the header, hashes included, as somebody would who wants to do harm."""
    raw = safetensors.read_header_bytes(path)
    body, header = path.read_bytes()[len(raw) :], json.loads(raw[8:])
    metadata = header["__metadata__"]
    weights = json.loads(metadata["weights"])
    change(header, weights)
    metadata["weights"] = json.dumps(weights) if weights else "[]"
    metadata["header_sha256"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    blank = struct.pack("<Q", len(text)) + text
    at = 8 + len(ternary_file._FIRST)
    digest = ternary_file.hashlib.sha256(blank).hexdigest().encode()
    path.write_bytes(blank[:at] + digest + blank[at + 64 :] + body)


GATE = "blocks.0.feedforward.gate_EFD"


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("shape", [3, 32, 31], "does not fit"),
        ("shape", [3, 2**40, 2**40], "does not fit"),
        ("shape", [0, 32, 32], "of the shape"),
        ("shape", [3, -32, -32], "of the shape"),
        ("shape", [3, 32, 32.0], "of the shape"),
        ("shape", [], "of the shape"),
        ("shape", "many", "of the shape"),
        ("shape", [3 * 32 * 32], "does not fit"),
        ("form", "binary", "unknown form"),
        ("form", "int8", "not those that it says it holds"),
        ("form", ["ternary"], "not a whole ternary file"),
    ],
)
def test_an_absurd_weight_is_refused(path: Path, field: str, value: Any, sentence: str) -> None:
    def change(header: dict[str, Any], weights: dict[str, Any]) -> None:
        weights[GATE][field] = value

    forged(path, change)
    with pytest.raises(BadModelFile, match=sentence):
        ternary.read(path).check()


def test_a_weight_that_the_header_does_not_describe_is_refused(path: Path) -> None:
    forged(path, lambda header, weights: weights.pop(GATE))
    with pytest.raises(BadModelFile, match="not those that it says it holds"):
        ternary.read(path)


def test_a_file_of_another_format_is_refused(path: Path) -> None:
    forged(path, lambda header, _: header["__metadata__"].update(format="sharedllm-ternary-9"))
    with pytest.raises(BadModelFile, match="its format is 'sharedllm-ternary-9'"):
        ternary.read(path)


@pytest.mark.parametrize("missing", ["config", "licence", "provenance", "sha256"])
def test_metadata_that_lack_something_are_refused(path: Path, missing: str) -> None:
    forged(path, lambda header, _: header["__metadata__"].pop(missing))
    with pytest.raises(BadModelFile, match="not a whole ternary file"):
        ternary.read(path)


def test_weights_that_are_no_table_are_refused(path: Path) -> None:
    forged(path, lambda _, weights: weights.clear())
    with pytest.raises(BadModelFile, match="not a whole ternary file"):
        ternary.read(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_scales_that_are_no_numbers_are_refused(number: float) -> None:
    scales = torch.full((1, 2, 1), number, dtype=torch.float16)
    with pytest.raises(BadModelFile, match="Scales hold NaN or infinity"):
        ternary.TernaryTensor(torch.zeros(1, 2, dtype=torch.uint8), scales, (2, 5))


def test_a_weight_made_of_bytes_that_are_no_trits_is_refused() -> None:
    scales = torch.ones(1, 2, 1, dtype=torch.float16)
    with pytest.raises(BadModelFile, match="at most 242, but one is 243"):
        ternary.TernaryTensor(torch.full((1, 2), 243, dtype=torch.uint8), scales, (2, 5))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float32])
def test_trits_of_another_type_are_refused(dtype: torch.dtype) -> None:
    scales = torch.ones(1, 2, 1, dtype=torch.float16)
    with pytest.raises(BadModelFile, match="10 trits take 2 bytes, but there are 2 of"):
        ternary.TernaryTensor(torch.zeros(1, 2, dtype=dtype), scales, (2, 5))


@pytest.mark.parametrize(
    ("shape", "scales"),
    [((1, 2, 3), (2, 5)), ((1, 3, 1), (2, 5)), ((2, 2, 1), (2, 5)), ((1, 2, 0), (2, 5)), ((), (2, 5))],
)
def test_scales_that_do_not_fit_are_refused(shape: tuple[int, ...], scales: tuple[int, int]) -> None:
    with pytest.raises(BadModelFile, match="Scales have the shape"):
        ternary.TernaryTensor(
            torch.full((1, 2), 121, dtype=torch.uint8), torch.ones(shape, dtype=torch.float16), scales
        )


@pytest.mark.parametrize(("bits", "dtype", "shape"), [(8, torch.uint8, (2, 6)), (4, torch.uint8, (2, 6))])
def test_steps_that_do_not_fit_are_refused(bits: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadModelFile, match=f"Steps of {bits} bits"):
        ternary.SteppedTensor(
            torch.zeros(shape, dtype=dtype), torch.ones(2, 1, dtype=torch.float16), (2, 6), bits
        )


@pytest.mark.parametrize("provenance", ["[]", "7", '"no"'])
def test_a_provenance_that_is_no_table_is_refused(path: Path, provenance: str) -> None:
    forged(path, lambda header, _: header["__metadata__"].update(provenance=provenance))
    with pytest.raises(BadModelFile, match="not a whole ternary file"):
        ternary.read(path)


@pytest.mark.parametrize("provenance", [json.dumps({"a": "b" * 5000}), '{"a": NaN}'])
def test_a_file_that_no_manifest_can_describe_is_not_taken_in(path: Path, provenance: str) -> None:
    forged(path, lambda header, _: header["__metadata__"].update(provenance=provenance))
    with pytest.raises(BadModelFile, match="more of itself than a manifest holds"):
        store.resolve(path)
