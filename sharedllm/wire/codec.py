"""Hidden states as bytes: fp32 as they are, fp16 (the default), or int8 with one scale per row.

``rounded`` is what a tensor becomes by being sent; a worker applies it in place where an earlier pipeline had
a border, so that a generation that moves to other nodes keeps the roundings that it began with.

*Covered*: values beyond fp16's range, infinity too (they saturate), rows of zeros, lengths that do not match.
*Not covered*: NaN passes (the receiver looks for it), and so does infinity except as fp16; how much a codec
costs in bits per byte is measured, not promised.
"""

from __future__ import annotations

import enum

import torch
from torch import Tensor

from sharedllm.wire.errors import BadFrame

__all__ = ["Codec", "decode", "encode", "encoded_bytes", "rounded"]

_FP16_MOST = 65504.0


class Codec(enum.IntEnum):
    """How hidden states travel."""

    FP32 = 0
    FP16 = 1
    INT8 = 2

    @classmethod
    def named(cls, name: str) -> Codec:
        """The codec called ``fp32``, ``fp16`` or ``int8``. Raises ``BadFrame``."""
        try:
            return cls[name.upper()]
        except KeyError:
            raise BadFrame(f"{name!r} is no way to send activations; choose fp32, fp16 or int8.") from None


def encoded_bytes(codec: Codec, rows: int, width: int) -> int:
    """Bytes that ``rows`` vectors of ``width`` take."""
    per_row = {Codec.FP32: 4 * width, Codec.FP16: 2 * width, Codec.INT8: width + 4}
    return rows * per_row[codec]


def encode(h_RD: Tensor, codec: Codec) -> memoryview:
    """Turn fp32 rows into bytes: all scales first for int8, else the numbers alone. No copy for fp32."""
    if h_RD.numel() == 0:
        return memoryview(b"")
    h_RD = h_RD.detach().to("cpu", torch.float32).contiguous()
    if codec is Codec.INT8:
        scale_R1, steps_RD = _steps(h_RD)
        return memoryview(scale_R1.numpy().tobytes() + steps_RD.numpy().tobytes())
    if codec is Codec.FP16:
        h_RD = h_RD.clamp(-_FP16_MOST, _FP16_MOST).half()
    return h_RD.numpy().data.cast("B")


def decode(body: bytes | bytearray | memoryview, codec: Codec, rows: int, width: int) -> Tensor:
    """Turn the bytes of ``encode`` back into ``h_RD`` in fp32. Raises ``BadFrame`` for a wrong length."""
    expected, given = encoded_bytes(codec, rows, width), memoryview(body).nbytes
    if given != expected:
        raise BadFrame(
            f"{rows} rows of {width} as {codec.name.lower()} take {expected:,} bytes; {given:,} came."
        )
    if rows * width == 0:
        return torch.empty(rows, width)
    writable = body if isinstance(body, bytearray) else bytearray(body)
    if codec is Codec.INT8:
        scale_R1 = torch.frombuffer(writable, dtype=torch.float32, count=rows)[:, None]
        return torch.frombuffer(writable, dtype=torch.int8, offset=4 * rows).view(rows, width) * scale_R1
    dtype = torch.float32 if codec is Codec.FP32 else torch.float16
    return torch.frombuffer(writable, dtype=dtype).view(rows, width).float()


def rounded(h_RD: Tensor, codec: Codec) -> Tensor:
    """What the rows would be after a journey: bit for bit ``decode(encode(h))``."""
    if codec is Codec.FP32:
        return h_RD
    if codec is Codec.FP16:
        return h_RD.clamp(-_FP16_MOST, _FP16_MOST).half().float()
    scale_R1, steps_RD = _steps(h_RD)
    return steps_RD * scale_R1


def _steps(h_RD: Tensor) -> tuple[Tensor, Tensor]:
    """Scale ``[R, 1]`` and int8 steps ``[R, D]`` of each row (Dettmers et al., 2208.07339 §2.1)."""
    scale_R1 = (h_RD.abs().amax(dim=-1, keepdim=True) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return scale_R1, (h_RD / scale_R1).round().clamp(-127, 127).to(torch.int8)
