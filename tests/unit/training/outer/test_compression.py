"""Messages: their lengths, what they keep, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sharedllm.errors import BadRecipe, BadUpdate
from sharedllm.training.outer import CODECS, Codec, Coding, decode, encode, message_bytes, random_codes

HEADER = 16


def drawn(numbers: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(numbers, generator=torch.Generator().manual_seed(seed))


def sent(vector_P: torch.Tensor, codec: Codec) -> torch.Tensor:
    return decode(encode(vector_P, Coding(codec, feedback=False)), len(vector_P))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("numbers", [1, 3, 512, 513, 4096, 10_001])
def test_a_message_has_the_length_that_is_foretold(codec: Codec, numbers: int) -> None:
    assert len(encode(drawn(numbers), Coding(codec))) == message_bytes(codec, numbers)


def test_two_bits_take_a_quarter_byte_a_number_and_two_bytes_a_group() -> None:
    assert message_bytes("2bit", 512 * 100) == HEADER + 512 * 100 // 4 + 2 * 100


def test_the_largest_take_a_200th_of_fp32() -> None:
    assert message_bytes("fp32", 4096 * 1000) / message_bytes("topk", 4096 * 1000) > 199


def test_fp32_is_exact() -> None:
    assert torch.equal(sent(drawn(1000), "fp32"), drawn(1000))


def test_int8_is_within_half_a_step_of_every_number() -> None:
    vector_P = drawn(512)
    step = vector_P.abs().max() / 127
    # a bfloat16 scale is off by up to 2⁻⁹, and so is the outermost level
    assert (sent(vector_P, "int8") - vector_P).abs().max() <= step * (0.5 + 127 * 2**-8)


@pytest.mark.parametrize(("codec", "left"), [("int8", 0.01), ("2bit", 0.36), ("topk", 0.96)])
def test_rounding_leaves_a_known_share_of_a_normal_vector(codec: Codec, left: float) -> None:
    vector_P = drawn(40_960)
    assert (sent(vector_P, codec) - vector_P).norm() < left * vector_P.norm()


def test_the_numbers_that_top_k_sends_are_the_largest_of_their_chunk() -> None:
    vector_P = drawn(4096)
    chosen = sent(vector_P, "topk").nonzero().flatten()
    assert set(chosen.tolist()) == set(vector_P.abs().topk(64).indices.tolist())


def test_top_k_finds_a_spike_at_every_place_of_a_chunk() -> None:
    spikes = torch.zeros(4096 * 3)
    places = torch.tensor([0, 4095, 4096, 8191, 8192 + 2048])
    spikes[places] = 5.0
    assert (sent(spikes, "topk")[places] > 0).all()


@pytest.mark.parametrize("codec", CODECS)
def test_zeros_stay_zeros(codec: Codec) -> None:
    assert not sent(torch.zeros(1000), codec).any()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [2.0**-100, 2.0**100])
def test_no_unit_is_too_small_or_too_large(codec: Codec, size: float) -> None:
    vector_P = drawn(4096)
    assert torch.equal(sent(vector_P * size, codec) / size, sent(vector_P, codec))


def test_without_feedback_nothing_is_owed() -> None:
    coding = Coding("2bit", feedback=False)
    encode(drawn(100), coding)
    assert coding.residual_P is None


def test_what_is_owed_is_sent_later() -> None:
    coding, meant_P = Coding("2bit"), drawn(512)
    total_P = sum((decode(encode(meant_P, coding), 512) for _ in range(50)), torch.zeros(512))
    assert (total_P / 50 - meant_P).norm() < 0.2 * (sent(meant_P, "2bit") - meant_P).norm()


def test_random_levels_keep_the_scales_and_nothing_else() -> None:
    data = encode(drawn(512 * 3), Coding("2bit"))
    spoilt = random_codes(data, np.random.default_rng(0))
    assert spoilt[: HEADER + 6] == data[: HEADER + 6]
    assert spoilt[HEADER + 6 :] != data[HEADER + 6 :]


def test_levels_are_drawn_for_two_bits_alone() -> None:
    with pytest.raises(ValueError, match="not for int8"):
        random_codes(encode(drawn(10), Coding("int8")), np.random.default_rng(0))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 2e38])
def test_a_number_that_no_receiver_accepts_is_not_sent(bad: float) -> None:
    with pytest.raises(BadUpdate, match="above 1e38"):
        encode(torch.tensor([0.0, bad]), Coding("fp32"))


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_message_with_no_number_in_it_is_refused(bad: float) -> None:
    data = encode(torch.zeros(3), Coding("fp32"))[:HEADER] + np.array([0, bad, 0], "<f4").tobytes()
    with pytest.raises(BadUpdate, match="NaN or infinity"):
        decode(data, 3)


@pytest.mark.parametrize("codec", ["int8", "2bit", "topk"])
def test_an_infinite_scale_is_refused(codec: Codec) -> None:
    data = bytearray(encode(drawn(100), Coding(codec)))
    data[HEADER : HEADER + 2] = b"\x80\x7f"
    with pytest.raises(BadUpdate, match="NaN or infinity"):
        decode(bytes(data), 100)


@pytest.mark.parametrize("codec", CODECS)
def test_every_other_length_is_refused(codec: Codec) -> None:
    data = encode(drawn(100), Coding(codec))
    for wrong in (b"", data[:HEADER], data[:-1], data + b"\0"):
        with pytest.raises(BadUpdate):
            decode(wrong, 100)


def test_a_message_about_another_model_is_refused() -> None:
    with pytest.raises(BadUpdate, match="expected 101 numbers"):
        decode(encode(drawn(100), Coding("fp32")), 101)


@pytest.mark.parametrize("start", [b"SLU0\0", b"SLU1\x04"])
def test_another_version_or_codec_is_refused(start: bytes) -> None:
    data = encode(drawn(100), Coding("fp32"))
    with pytest.raises(BadUpdate, match="same release"):
        decode(start + data[5:], 100)


def test_a_chunk_that_names_too_many_numbers_is_refused() -> None:
    data = encode(drawn(4096), Coding("topk"))
    with pytest.raises(BadUpdate, match="does not name 64"):
        decode(data[:-16] + b"\xff" * 16, 4096)


def test_indices_that_do_not_rise_are_refused() -> None:
    data = encode(drawn(4096), Coding("topk"))
    with pytest.raises(BadUpdate, match="out of order"):
        decode(data[:-64] + b"\0" * 48 + b"\xff" * 8 + b"\0" * 8, 4096)


def test_an_index_beyond_its_chunk_is_refused() -> None:
    data = encode(drawn(4096), Coding("topk"))
    spread = np.packbits([1] * 0 + [1, 0] * 63 + [0, 1]).tobytes()  # the last one steps beyond 4,095
    with pytest.raises(BadUpdate, match="out of order"):
        decode(data[:-16] + spread, 4096)


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(BadRecipe, match="no codec 'zip'"):
        Coding("zip")  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", [torch.zeros(2, 2), torch.zeros(3, dtype=torch.int64)])
def test_what_is_no_vector_is_a_mistake_of_the_caller(odd: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="vector in fp32 or fp64"):
        encode(odd, Coding("fp32"))
