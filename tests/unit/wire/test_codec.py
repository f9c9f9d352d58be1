"""Hidden states survive the journey as each codec promises."""

from __future__ import annotations

import pytest
import torch

from sharedllm.wire import BadFrame, Codec, decode, encode, encoded_bytes, rounded

CODECS = list(Codec)
H = torch.randn(5, 24, generator=torch.Generator().manual_seed(0)) * 10


def sent(h_RD: torch.Tensor, codec: Codec) -> torch.Tensor:
    return decode(encode(h_RD, codec), codec, *h_RD.shape)


@pytest.mark.parametrize("codec", CODECS)
def test_what_rounding_says_is_what_arrives(codec: Codec) -> None:
    assert torch.equal(sent(H, codec), rounded(H, codec))


@pytest.mark.parametrize("codec", CODECS)
def test_a_second_journey_changes_nothing(codec: Codec) -> None:
    once = rounded(H, codec)
    assert torch.equal(rounded(once, codec), once)


@pytest.mark.parametrize("codec", CODECS)
def test_bytes_are_as_many_as_announced(codec: Codec) -> None:
    assert encode(H, codec).nbytes == encoded_bytes(codec, *H.shape)


@pytest.mark.parametrize("codec", CODECS)
def test_rows_do_not_depend_on_their_neighbours(codec: Codec) -> None:
    assert torch.equal(sent(H[2:3], codec), sent(H, codec)[2:3])


@pytest.mark.parametrize("codec", CODECS)
def test_zeros_arrive_as_zeros(codec: Codec) -> None:
    assert torch.equal(sent(torch.zeros(3, 8), codec), torch.zeros(3, 8))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_can_be_read_and_stay_unchanged(codec: Codec, kind: type) -> None:
    body = bytes(encode(H, codec))
    assert torch.equal(decode(kind(body), codec, *H.shape), rounded(H, codec))


def test_fp32_is_sent_from_where_it_lies_and_read_where_it_arrived() -> None:
    body = bytearray(bytes(encode(H, Codec.FP32)))
    arrived = decode(body, Codec.FP32, *H.shape)
    body[:4] = bytes(4)
    assert arrived[0, 0] == 0
    assert torch.frombuffer(encode(H, Codec.FP32), dtype=torch.float32).data_ptr() == H.data_ptr()


def test_columns_of_another_tensor_can_be_sent() -> None:
    part = H[:, 3:9]
    assert torch.equal(sent(part, Codec.FP32), part)


def test_what_fp16_can_not_hold_saturates() -> None:
    arrived = sent(torch.tensor([[1e9, -1e9, 65504.0, 1e-9, torch.inf]]), Codec.FP16)
    assert arrived.tolist() == [[65504.0, -65504.0, 65504.0, 0.0, 65504.0]]


def test_int8_is_off_by_at_most_half_a_step_of_its_row() -> None:
    h_RD = H * torch.tensor([1e-6, 1.0, 1e6, 3.0, 1e-30])[:, None]
    scale_R1 = h_RD.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((sent(h_RD, Codec.INT8) - h_RD).abs() <= scale_R1 * 0.5001).all())


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_not_a_number_is_not_hidden(codec: Codec) -> None:
    assert not bool(sent(torch.tensor([[1.0, torch.nan]]), codec).isfinite().all())


@pytest.mark.parametrize("codec", CODECS)
def test_no_rows_are_no_bytes(codec: Codec) -> None:
    assert encode(torch.empty(0, 8), codec).nbytes == 0
    assert decode(b"", codec, 0, 8).shape == (0, 8)


@pytest.mark.parametrize("codec", CODECS)
def test_rows_without_numbers_are_read_as_such(codec: Codec) -> None:
    assert decode(bytes(encoded_bytes(codec, 3, 0)), codec, 3, 0).shape == (3, 0)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("change", [-1, 1])
def test_bytes_of_another_count_are_refused(codec: Codec, change: int) -> None:
    with pytest.raises(BadFrame, match=r"5 rows of 24 as"):
        decode(bytes(encoded_bytes(codec, 5, 24) + change), codec, 5, 24)


def test_a_codec_has_a_name() -> None:
    assert [Codec.named(name) for name in ("fp32", "fp16", "int8")] == CODECS
    with pytest.raises(BadFrame, match="choose fp32, fp16 or int8"):
        Codec.named("fp8")
