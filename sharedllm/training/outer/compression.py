"""What a worker sends of a round's work: a vector as bytes, and back, at 32, 8, 2 or 0.16 bits per number.

| codec | bytes for P numbers, after a header of 16 |
|---|---|
| fp32 | 4 P |
| int8 | P + 2 ⌈P/512⌉ |
| 2bit | ⌈P/4⌉ + 2 ⌈P/512⌉ |
| topk | 82 ⌈P/4096⌉ |

*Error feedback* (Seide et al. 2014; Karimireddy et al., arXiv 1901.09847): what rounding held back is added
to the next round's vector, so that what was sent and what remains always add up to what was meant. For
vectors in fp32 each addition rounds (at most 2⁻²⁴ of its result); in fp64 the sum is exact as long as the
numbers span fewer than 53 bits.

*Covered*: a message of any other length than its codec and P say is refused before memory is taken for it,
and so is one that holds NaN or infinity. *Not covered*: who sent it (the transport's task), and whether it
is honest (``sharedllm.robust``'s).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharedllm.errors import BadRecipe, BadUpdate
from sharedllm.training.outer import quantiser, sparse
from sharedllm.training.outer.quantiser import GROUP, SCALE_BYTES, Array

__all__ = ["CODECS", "HEADER_BYTES", "Codec", "Coding", "decode", "encode", "message_bytes", "random_codes"]

Codec = Literal["fp32", "int8", "2bit", "topk"]
CODECS: tuple[Codec, ...] = get_args(Codec)

_HEADER = struct.Struct("<4sBxxxQ")  # magic and version, codec, numbers
HEADER_BYTES = _HEADER.size
_MAGIC = b"SLU1"
_LARGEST = 1e38  # a bfloat16 rounds up to 3.39e38 without becoming infinite


@dataclass
class Coding:
    """How one worker sends, and with ``feedback`` what it still owes: ``residual_P``, None before it sent.

    Raises ``BadRecipe`` for a codec that does not exist.
    """

    codec: Codec
    feedback: bool = True
    residual_P: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise BadRecipe(f"There is no codec {self.codec!r}; the codecs are {', '.join(CODECS)}.")


def encode(vector_P: Tensor, coding: Coding) -> bytes:
    """Write a vector (fp32 or fp64), and with feedback keep in ``coding`` what was held back.

    Raises ``BadUpdate`` for NaN, infinity or a magnitude above 1e38, ``ValueError`` for what is no vector or
    has another length than the residual.
    """
    if vector_P.ndim != 1 or vector_P.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"An update is a vector in fp32 or fp64, not {vector_P.dtype} {vector_P.shape}.")
    meant_P = vector_P if coding.residual_P is None else vector_P + coding.residual_P
    if not bool((meant_P.abs() <= _LARGEST).all()):
        raise BadUpdate("The update holds NaN or a number above 1e38; lower the learning rate.")
    payload = _WRITERS[coding.codec](meant_P.numpy())
    data = _HEADER.pack(_MAGIC, CODECS.index(coding.codec), len(vector_P)) + payload
    if coding.feedback:
        coding.residual_P = meant_P - decode(data, len(vector_P))
    return data


def decode(data: bytes | memoryview, numbers: int) -> Tensor:
    """Read a message that should hold ``numbers`` numbers: ``vector_P`` in fp32.

    Raises ``BadUpdate`` when it is no such message, damaged, or not finite.
    """
    whole = memoryview(data)
    if len(whole) < HEADER_BYTES:
        raise BadUpdate(f"The update has {len(whole)} bytes, fewer than its header's {HEADER_BYTES}.")
    magic, number, told = _HEADER.unpack_from(whole)
    if magic != _MAGIC or number >= len(CODECS):
        raise BadUpdate("What was sent is no update of this version; all workers must run the same release.")
    codec = CODECS[number]
    expected = message_bytes(codec, numbers)
    if told != numbers or len(whole) != expected:
        raise BadUpdate(
            f"The update tells of {told} numbers in {len(whole)} bytes; expected {numbers} numbers in "
            f"{expected} bytes as {codec}. Both sides must train the same model."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        values = _READERS[codec](whole[HEADER_BYTES:], numbers)
    if not bool(np.isfinite(values).all()):
        raise BadUpdate("The update holds NaN or infinity; its sender is damaged or lies.")
    return torch.from_numpy(values)


def message_bytes(codec: Codec, numbers: int) -> int:
    """Say how long a message of ``numbers`` numbers is, header included."""
    scales = SCALE_BYTES * -(-numbers // GROUP)
    payload = {
        "fp32": 4 * numbers,
        "int8": numbers + scales,
        "2bit": -(-numbers // 4) + scales,
        "topk": sparse.CHUNK_BYTES * -(-numbers // sparse.CHUNK),
    }
    return HEADER_BYTES + payload[codec]


def random_codes(data: bytes, draw: np.random.Generator) -> bytes:
    """Return a 2-bit message with the same scales and random levels: what scales alone are worth.

    A control, for nothing is left of the update's directions. Raises ``ValueError`` for another codec.
    """
    _, number, numbers = _HEADER.unpack_from(data)
    if CODECS[number] != "2bit":
        raise ValueError(f"Levels are drawn for 2-bit messages, not for {CODECS[number]}.")
    start = HEADER_BYTES + SCALE_BYTES * -(-numbers // GROUP)
    return data[:start] + draw.bytes(len(data) - start)


def _grouped(values: Array) -> Array:
    return np.pad(values, (0, -len(values) % GROUP)).reshape(-1, GROUP)


def _write_fp32(values: Array) -> bytes:
    return values.astype("<f4").tobytes()


def _read_fp32(payload: memoryview, numbers: int) -> NDArray[np.float32]:
    return np.frombuffer(payload, "<f4").astype(np.float32)


def _write_int8(values: Array) -> bytes:
    scales, codes_GN = quantiser.nearest(_grouped(values))
    return scales + codes_GN.reshape(-1)[: len(values)].tobytes()


def _read_int8(payload: memoryview, numbers: int) -> NDArray[np.float32]:
    codes = np.frombuffer(payload[-numbers:] if numbers else b"", np.int8)
    return _scaled(codes.astype(np.float32), payload[: len(payload) - numbers])


def _write_2bit(values: Array) -> bytes:
    real_GN = _grouped(np.ones_like(values)) > 0
    scales, codes_GN = quantiser.two_bits(_grouped(values), real_GN)
    return scales + quantiser.pack_2bit(codes_GN.reshape(-1)[: len(values)])


def _read_2bit(payload: memoryview, numbers: int) -> NDArray[np.float32]:
    start = SCALE_BYTES * -(-numbers // GROUP)
    codes = quantiser.unpack_2bit(payload[start:])[:numbers]
    return _scaled(codes.astype(np.float32) - 1.5, payload[:start])


def _scaled(levels: NDArray[np.float32], scales: memoryview) -> NDArray[np.float32]:
    """Multiply each group's levels by its scale."""
    return levels * np.repeat(quantiser.from_bf16(scales), GROUP)[: len(levels)]


_WRITERS: dict[Codec, Callable[[Array], bytes]] = {
    "fp32": _write_fp32,
    "int8": _write_int8,
    "2bit": _write_2bit,
    "topk": sparse.write_top,
}
_READERS: dict[Codec, Callable[[memoryview, int], NDArray[np.float32]]] = {
    "fp32": _read_fp32,
    "int8": _read_int8,
    "2bit": _read_2bit,
    "topk": sparse.read_top,
}
