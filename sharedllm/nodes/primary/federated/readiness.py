"""Whether a primary is ready, from what is known: nobody who asks waits for a pipeline.

A pipeline is ready when a real token came through it since it was opened. One that nobody has used yet is
sent a token of our own from a thread beside; who asks meanwhile is told so, and who asks later knows more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sharedllm.nodes.errors import NoPipeline

if TYPE_CHECKING:
    from sharedllm.nodes.primary.loop import Loop
    from sharedllm.nodes.primary.ring import Ring

__all__ = ["Readiness"]


class Readiness:
    """What is known of each pipeline; ``prove`` sends a token through one and blocks, or raises
    ``NoPipeline``."""

    def __init__(self, prove: Callable[[Loop], None]) -> None:
        self._prove = prove
        self._proved: dict[Loop, Ring] = {}
        self._failures: dict[Loop, str] = {}
        self._proving: set[Loop] = set()
        self._lock = threading.Lock()

    def now(self, loops: Sequence[Loop]) -> tuple[bool, str]:
        """Whether all of them are ready, and a sentence."""
        lacking = [sentence for loop in loops if (sentence := self._lacks(loop))]
        return not lacking, lacking[0] if lacking else "Tokens go through the whole pipeline."

    def _lacks(self, loop: Loop) -> str:
        """Why a pipeline is not ready, or ``""``."""
        ring = loop.ring
        if ring is None:
            return loop.sentence
        if self._proved.get(loop) is ring or loop.pace.token_s():
            return ""
        with self._lock:
            if loop not in self._proving:
                self._proving.add(loop)
                threading.Thread(
                    target=self._send, args=(loop, ring), name="first token", daemon=True
                ).start()
            failure = self._failures.pop(loop, "")
        return failure or "The first token is on its way through the pipeline; ask again in a moment."

    def _send(self, loop: Loop, ring: Ring) -> None:
        try:
            self._prove(loop)
            if loop.ring is ring:
                self._proved[loop] = ring
        except NoPipeline as error:
            self._failures[loop] = str(error)
        finally:
            self._proving.discard(loop)
