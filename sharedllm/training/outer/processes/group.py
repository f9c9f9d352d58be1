"""The group of one generation: bytes from everybody to everybody, over gloo, in bounded time."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store

from sharedllm.training.outer.processes.errors import Broken
from sharedllm.training.outer.processes.meeting import Generation

__all__ = ["Group", "sent_bytes"]

_PLACE = re.compile(r"^(\[[^]]*\]\s*)+")  # where in gloo's source an error was raised
_TCP_INFO_BYTES, _BYTES_SENT_AT = 232, 200  # Linux 4.19 and later: struct tcp_info


class Group:
    """The members of ``generation``, connected; everything raises ``Broken`` once one of them fails.

    A ``with`` opens and closes it. A process is in one group at a time.
    """

    def __init__(
        self, store: Store, generation: Generation, number: int, interface: str, patience_s: float
    ) -> None:
        self.members, self.rank = generation.members, generation.members.index(number)
        self._store = PrefixStore(f"gloo/{generation.number}", store)
        self._interface, self._timeout = interface, timedelta(seconds=patience_s)

    def __enter__(self) -> Self:
        os.environ["GLOO_SOCKET_IFNAME"] = self._interface
        try:
            dist.init_process_group(
                "gloo",
                store=self._store,
                rank=self.rank,
                world_size=len(self.members),
                timeout=self._timeout,
            )
        except RuntimeError as error:
            self._close()
            raise Broken(f"The group did not come together ({_in_short(error)}).") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def gather(self, data: bytes) -> list[bytes]:
        """Return what each member gave, by rank; all must give equally many bytes."""
        own = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        all_of_them = [torch.empty_like(own) for _ in self.members]
        with _unbroken():
            dist.all_gather(all_of_them, own)
        return [one.numpy().tobytes() for one in all_of_them]

    def gather_up_to(self, data: bytes, lengths: Sequence[int]) -> list[bytes]:
        """Return what each member gave, where member ``i`` gives ``lengths[i]`` bytes."""
        padded = data.ljust(max(lengths), b"\0")
        if not padded:
            return [b""] * len(lengths)
        return [whole[:length] for whole, length in zip(self.gather(padded), lengths, strict=True)]

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Overwrite ``tensor`` with that of the member of rank ``source``."""
        with _unbroken():
            dist.broadcast(tensor, source)

    def _close(self) -> None:
        with contextlib.suppress(RuntimeError, ValueError, AssertionError):
            if dist.is_initialized():
                dist.destroy_process_group()


@contextlib.contextmanager
def _unbroken() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Broken(f"A member was lost ({_in_short(error)}).") from error


def _in_short(error: Exception) -> str:
    said = str(error).strip() or type(error).__name__
    return _PLACE.sub("", said.splitlines()[0]).partition(". ")[0].rstrip(".")[:200]


def sent_bytes() -> int:
    """Return what this process has sent over the TCP connections it has open, as the kernel counts it.

    Payload with gloo's and the store's own words, without packets' headers; 0 where the kernel doesn't tell.
    """
    if sys.platform != "linux":
        return 0
    total = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as same:
                if same.type == socket.SOCK_STREAM and same.family in (socket.AF_INET, socket.AF_INET6):
                    told = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
                    total += struct.unpack_from("<Q", told, _BYTES_SENT_AT)[0] if len(told) >= 208 else 0
    return total
