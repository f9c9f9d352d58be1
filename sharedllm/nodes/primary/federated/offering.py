"""What a primary serves is offered to the federation's library, so that other nodes can fetch it by its hash.

Once, in a thread of the lowest priority, a blob at a time, slower still while answers are computed. Nothing
waits for it, and what the library has already is not sent again.

*Covered*: a coordinator that is away (tried again every minute), a specialist that the library refuses (its
publisher withdrew it, its name is another's, no room) or whose bytes are damaged: it is left out, and the log
says why; a shutdown meanwhile. *Not covered*: a model that was given by its path, or saved under a name of
one's own, has no signed manifest and is not offered; the log says how to publish it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable

from sharedllm import store
from sharedllm.errors import SharedLLMError
from sharedllm.nodes import specialists as library
from sharedllm.nodes.coordinator.client import CoordinatorClient
from sharedllm.nodes.errors import Busy, CoordinatorAway
from sharedllm.nodes.primary.federated.lineup import Lineup
from sharedllm.store import specialists
from sharedllm.store.specialists import Signed

__all__ = ["Offering"]

_AGAIN_S = 60.0
_BREATH_S = 0.05  # between pieces of 256 KiB while answers are computed: 5 MB/s at most
_GRACE_S = 2.0
_LOWEST = 19
_log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Nobody wants it any more."""


class Offering(threading.Thread):
    """Offers what ``lineup`` found for ``model`` to the library behind ``client``.

    ``busy`` says whether answers are computed. ``offered`` are the names that the library has, and
    ``sentences`` say of all others why not, when the thread has ended.
    """

    def __init__(
        self, client: CoordinatorClient, model: str, lineup: Lineup, busy: Callable[[], bool]
    ) -> None:
        super().__init__(name="offering", daemon=True)
        self.offered: list[str] = []
        self.sentences: list[str] = []
        self._client, self._model, self._lineup, self._busy = client, model, lineup, busy
        self._ended = threading.Event()

    def run(self) -> None:
        """Offer all, one after the other."""
        with contextlib.suppress(OSError, AttributeError):  # where threads have a priority of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
        try:
            for signed in self._signed():
                self._offer(signed)
        except _Stopped:
            return
        except SharedLLMError as error:
            self._say(f"Nothing is offered to the federation: {error}")

    def stop(self) -> None:
        """Let go of what is being sent; a coordinator that hangs is not waited for."""
        self._ended.set()
        if self.ident is not None:
            self.join(_GRACE_S)

    def _signed(self) -> list[Signed]:
        """What is served and has a signed manifest."""
        found = [signed for signed in self._lineup.specialists.values() if signed is not None]
        common = {known.name for known in store.names() if known.origin != "saved in the store"}
        if self._model in common:
            return found
        weights = self._lineup.base.weights_sha256
        mine = [specialists.find(name) for name in specialists.names()]
        whole = [s for s in mine if s.body.adapter is None and s.body.weights_sha256 == weights]
        if not whole:
            self._say(
                f"{self._model} has no signed manifest, so this primary can't offer it to other nodes; they "
                f"need it in their own stores. Publish it with `sharedllm specialist publish {self._model}`."
            )
        return [*whole[:1], *found]

    def _offer(self, signed: Signed) -> None:
        adapted, body = signed.body.adapter is not None, signed.body
        base = {body.weights_sha256, body.tokenizer_sha256} if adapted else set()
        while True:
            try:
                library.offer(self._client, signed, leave_out=base, progress=self._breathe)
                self.offered.append(signed.name)
                return
            except (CoordinatorAway, Busy) as error:
                _log.info("%s is offered to the federation later: %s", signed.name, error)
                if self._ended.wait(_AGAIN_S):
                    raise _Stopped from error
            except SharedLLMError as error:
                self._say(f"{signed.name} is not offered to the federation: {error}")
                return

    def _breathe(self, what: str, done: int, total: int | None) -> None:
        if self._ended.wait(_BREATH_S if self._busy() else 0):
            raise _Stopped

    def _say(self, sentence: str) -> None:
        self.sentences.append(sentence)
        _log.warning("%s", sentence)
