"""Any vector: what is sent and what is owed add up; any bytes: a finite vector or a refusal."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.errors import BadUpdate
from sharedllm.training.outer import CODECS, Codec, Coding, decode, encode, message_bytes

CODEC = st.sampled_from(CODECS)
ROUNDS = st.lists(st.integers(0, 2**32), min_size=1, max_size=6)


def dyadic(numbers: int, seed: int) -> torch.Tensor:
    """Numbers of 12 bits at magnitudes from 2⁻⁸ to 2⁸, in fp64: their sums and differences are exact."""
    draw = torch.Generator().manual_seed(seed)
    whole = torch.randint(-2048, 2049, (numbers,), generator=draw).double()
    return whole * 2.0 ** torch.randint(-19, -3, (numbers,), generator=draw)


@given(CODEC, st.integers(1, 5000), ROUNDS)
@settings(deadline=None, max_examples=40)
def test_in_fp64_what_was_sent_and_what_is_owed_are_exactly_what_was_meant(
    codec: Codec, numbers: int, seeds: list[int]
) -> None:
    coding = Coding(codec)
    meant_P, sent_P = torch.zeros(numbers).double(), torch.zeros(numbers).double()
    for seed in seeds:
        vector_P = dyadic(numbers, seed)
        meant_P += vector_P
        sent_P += decode(encode(vector_P, coding), numbers)
    assert coding.residual_P is not None
    assert torch.equal(sent_P + coding.residual_P, meant_P)


@given(CODEC, st.integers(1, 5000), ROUNDS)
@settings(deadline=None, max_examples=40)
def test_in_fp32_they_add_up_to_the_roundings_of_each_round(
    codec: Codec, numbers: int, seeds: list[int]
) -> None:
    coding = Coding(codec)
    meant_P, sent_P = torch.zeros(numbers).double(), torch.zeros(numbers).double()
    allowed_P = torch.zeros(numbers).double()
    for seed in seeds:
        vector_P = torch.randn(numbers, generator=torch.Generator().manual_seed(seed))
        before_P = torch.zeros(numbers) if coding.residual_P is None else coding.residual_P
        meant_P += vector_P.double()
        sent_P += decode(encode(vector_P, coding), numbers)
        assert coding.residual_P is not None
        # one addition before, one subtraction after
        allowed_P += 2**-24 * ((vector_P + before_P).abs() + coding.residual_P.abs()).double()
    assert coding.residual_P is not None
    assert ((sent_P + coding.residual_P - meant_P).abs() <= allowed_P).all()


@given(st.sampled_from(["2bit", "topk"]), st.integers(1, 5000), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_what_is_owed_is_shorter_than_what_was_meant(codec: Codec, numbers: int, seed: int) -> None:
    coding = Coding(codec)
    vector_P = torch.randn(numbers, generator=torch.Generator().manual_seed(seed))
    encode(vector_P, coding)
    assert coding.residual_P is not None
    assert coding.residual_P.norm() < vector_P.norm()


@given(CODEC, st.integers(1, 600), st.data())
@settings(deadline=None, max_examples=100)
def test_any_bytes_are_a_finite_vector_or_refused(codec: Codec, numbers: int, data: st.DataObject) -> None:
    header = encode(torch.zeros(numbers), Coding(codec))[:16]
    size = message_bytes(codec, numbers) - 16
    payload = data.draw(st.binary(min_size=size, max_size=size) | st.binary(max_size=64))
    try:
        vector_P = decode(header + payload, numbers)
    except BadUpdate:
        return
    assert vector_P.shape == (numbers,)
    assert bool(vector_P.isfinite().all())
