"""The meeting place: where workers agree on who is in the next generation of the group.

A small key-value store (torch's ``TCPStore``) that the launcher hosts. A *generation* is a fixed list of
members; when one of them fails, or somebody wants in, the others leave it and take seats for the next. It is
closed once, by an atomic compare-and-set, when everybody who is expected has a seat, or when the latecomers'
time is over. Only members of the last generation close the next one: newcomers can't split it.

*Covered*: members that die, hang, or come back after their generation ended; newcomers at any time; two
members that close at once. *Not covered*: the store itself dying, which ends the training (checkpoints stay);
a stranger who can reach the store, which believes everybody: keep it on loopback or in a private network.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

import psutil
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch leaves it out of __all__
from torch.distributed.distributed_c10d import Store

from sharedllm.errors import BadRecipe
from sharedllm.training.outer.processes.errors import CannotGoOn
from sharedllm.training.outer.processes.settings import Settings

__all__ = ["GIVE_UP", "Generation", "Meeting", "enter", "host", "interface_toward", "listen"]

_SETTINGS, _NUMBERS = "settings", "numbers"
_STORE_TIMEOUT_S = 30.0
_START_S = 180.0  # python, torch and a checkpoint, on a machine that has other work
_OUTSIDE_S = 86_400.0
_SETTLE_S = 2.0
_LOOK_S = 0.05
GIVE_UP = 10  # times the patience
_MAX_MEMBERS = 256
_EVERYWHERE = ("", "0.0.0.0", "::")


class Generation(NamedTuple):
    """The members of the group from one failure or arrival to the next, in the order of their ranks."""

    number: int
    members: tuple[int, ...]


def listen(address: str, port: int) -> socket.socket:
    """Listen on ``address`` alone. Raises ``BadRecipe`` for a taken port, and for all addresses at once."""
    if address in _EVERYWHERE:
        raise BadRecipe(
            f"{address} is every address of this machine; give the one at which the other machines reach it."
        )
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise BadRecipe(
            f"The meeting place can't listen on {address}:{port} ({error.strerror}); give another --port, or "
            "none and the system chooses one."
        ) from error
    return listener


def host(settings: Settings, listener: socket.socket) -> TCPStore:
    """Open a meeting place for ``settings`` where ``listener``, which it takes over, listens."""
    address, port = listener.getsockname()[:2]
    store = TCPStore(
        address,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=_STORE_TIMEOUT_S),
        master_listen_fd=listener.detach(),
    )
    store.set(_SETTINGS, settings.to_json().decode())
    store.add(_NUMBERS, settings.workers)
    return store


def enter(address: str, port: int) -> tuple[TCPStore, Settings]:
    """Find the meeting place at ``address:port`` and what is trained there. Raises ``BadRecipe``."""
    timeout = timedelta(seconds=_STORE_TIMEOUT_S)
    try:
        # a plain connection first: the store's own complaint is a page long
        socket.create_connection((address, port), _STORE_TIMEOUT_S).close()
        store = TCPStore(address, port, is_master=False, timeout=timeout, wait_for_workers=False)
        return store, Settings.from_json(store.get(_SETTINGS))
    except (OSError, RuntimeError) as error:
        raise BadRecipe(
            f"No training meets at {address}:{port}; give the address that `sharedllm train diloco` printed."
        ) from error


def interface_toward(address: str, port: int) -> str:
    """Return the name of the network interface over which ``address`` is reached: gloo shall use it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))  # a datagram socket sends nothing by connecting
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(known.address.partition("%")[0] == own for known in addresses):
            return str(name)
    raise CannotGoOn(f"No network interface has the address {own}, from which {address} is reached.")


class Meeting:
    """One worker's view of the meeting place. All of it raises ``CannotGoOn`` when the place is gone."""

    def __init__(self, store: Store, settings: Settings, number: int, least: int) -> None:
        self._store, self._settings, self._number, self._least = store, settings, number, least
        self._closed = Generation(0, ())

    @staticmethod
    def number(store: Store) -> int:
        """Draw the number of a newcomer: nobody else's, and after those that started together."""
        with _reached():
            return int(store.add(_NUMBERS, 1)) - 1

    def next(self, arrived_s: float, *, finished: bool) -> Generation:
        """Return the next generation that this worker is in, waiting until there is one.

        ``arrived_s`` (monotonic) is when this worker was first ready for the round that is to be repeated:
        others are waited for from then on. One that is ``finished`` may go on alone. Raises ``CannotGoOn``
        when too few are left, or this worker was put out.
        """
        with _reached():
            return self._next(arrived_s, finished)

    def _next(self, arrived_s: float, finished: bool) -> Generation:
        began_s = time.monotonic()
        seated = 0
        while True:
            if self._store.check([f"out/{self._number}"]):
                raise CannotGoOn(self._store.get(f"out/{self._number}").decode())
            before = self._closed.number
            if self._look() and self._number in self._closed.members:
                return self._closed
            number = self._closed.number + 1
            if self._closed.members and all(self._gone(one) for one in self._closed.members):
                raise CannotGoOn(
                    f"Worker {self._number} is alone: all who trained are done or dead. If they did not come "
                    "to the end, start the training again: it goes on from its checkpoint."
                )
            if seated < number:
                seat = self._store.add(f"seats/{number}", 1)
                self._store.set(f"seat/{number}/{seat}", str(self._number))
                seated = number
            if before != self._closed.number:
                began_s = time.monotonic()  # the training goes on without us: that is life, and no silence
            self._try_to_close(number, arrived_s, began_s, finished)
            waited_s = time.monotonic() - max(began_s, arrived_s)
            if waited_s > self._longest_s():
                raise CannotGoOn(
                    f"Worker {self._number} waited {waited_s:.0f} s for others; {self._least} are needed. "
                    "Start the training again; it goes on from its checkpoint."
                )
            time.sleep(_LOOK_S)  # the store's own wait writes a warning whenever it ends in vain

    def waiting(self) -> bool:
        """Whether somebody who is not in this generation has taken a seat for the next."""
        with _reached():
            return bool(self._store.check([f"seats/{self._closed.number + 1}"]))

    def put_out(self, number: int, why: str) -> None:
        """Let worker ``number`` into no later generation, and tell it ``why``."""
        with _reached():
            self._store.set(f"out/{number}", why)

    def leave(self) -> None:
        """Let nobody wait for this worker."""
        with _reached():
            depart(self._store, self._number)

    def _longest_s(self) -> float:
        """How long this worker waits for a generation that it is in."""
        if self._closed.number == 0:
            return _START_S + GIVE_UP * self._settings.patience_s
        # the others may be busy with a long round, and nobody can say how long it is
        return GIVE_UP * self._settings.patience_s if self._number in self._closed.members else _OUTSIDE_S

    def _look(self) -> bool:
        """Read which generations were closed since the last look; returns whether any was."""
        found = False
        while self._store.check([f"closed/{self._closed.number + 1}"]):
            number = self._closed.number + 1
            members = json.loads(self._store.get(f"closed/{number}"))
            self._closed = Generation(number, tuple(int(member) for member in members))
            found = True
        return found

    def _try_to_close(self, number: int, arrived_s: float, began_s: float, finished: bool) -> None:
        first = number == 1
        if not first and self._number not in self._closed.members:
            return
        seats = min(self._store.add(f"seats/{number}", 0), _MAX_MEMBERS)
        taken = [f"seat/{number}/{seat}" for seat in range(1, seats + 1)]
        seated = {int(self._store.get(key)) for key in taken if self._store.check([key])}
        members = {one for one in seated if not self._gone(one)}
        expected = set(range(self._settings.workers)) if first else set(self._closed.members)
        awaited = {one for one in expected - members if not self._gone(one)}
        patience_s = _START_S if first else self._settings.patience_s
        late = time.monotonic() > max(arrived_s + patience_s, began_s + min(_SETTLE_S, patience_s))
        enough = len(members) >= self._least or finished
        if enough and (late or not awaited):
            value = json.dumps(sorted(members))
            self._store.compare_set(f"closed/{number}", "", value)

    def _gone(self, number: int) -> bool:
        return bool(self._store.check([f"left/{number}"]) or self._store.check([f"out/{number}"]))


def depart(store: Store, number: int) -> None:
    """Say that worker ``number`` is dead or done."""
    store.set(f"left/{number}", "1")


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what the store raises: DistNetworkError, DistStoreError
        raise CannotGoOn(
            "The meeting place of the training does not answer any more. If the training goes on, join it "
            "again; if not, start it again: it goes on from its checkpoint."
        ) from error
