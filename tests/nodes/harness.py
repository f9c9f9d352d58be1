"""A real federation of processes on this machine, which tests harm, and what they ask of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from openai import OpenAI

from sharedllm.nodes.local import Federation, Process

__all__ = ["PROMPT", "TOKENS", "Network", "Told", "within"]

PROMPT = "Once upon a time there was a river, and by the river stood a mill whose wheel never"
TOKENS = 120


@dataclass
class Told:
    """What a stream said: its text, when each piece came, and what happened on the way."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    finish: str | None = None

    @property
    def longest_gap_s(self) -> float:
        return max(after - before for before, after in zip(self.at_s, self.at_s[1:], strict=False))


class Network:
    """A federation of the toy model, and what tests ask of it."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.client = OpenAI(base_url=federation.api_url, api_key="none", max_retries=0, timeout=120)

    def tell(
        self,
        meanwhile: Callable[[], object] | None = None,
        at: int = 12,
        patience: int = 0,
        **more: Any,
    ) -> Told:
        """Stream a greedy continuation; ``meanwhile`` runs in this thread after ``at`` tokens.

        ``patience``: how often the client comes back when it is told to (429), as people's clients do.
        """
        told = Told()
        asked = {"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "logprobs": 1, **more}
        client = self.client.with_options(max_retries=patience)
        stream = client.completions.create(model="toy", stream=True, **asked)
        for chunk in stream:
            if not chunk.choices:
                continue
            told.text += chunk.choices[0].text
            told.finish = chunk.choices[0].finish_reason or told.finish
            told.at_s.append(time.monotonic())
            if meanwhile is not None and len(told.at_s) == at:
                meanwhile()
        return told

    def state(self) -> dict[str, Any]:
        """The primary's picture of itself."""
        found: dict[str, Any] = httpx.get(f"{self.federation.page_url}/v1/sharedllm/state").json()
        return found

    def serving(self) -> list[Process]:
        """The workers of the present pipeline, in order."""
        by_name = {worker.name: worker for worker in self.federation.workers}
        return [by_name[span["name"]] for span in self.state()["spans"]]

    def whole(self, deadline_s: float = 90.0) -> None:
        """Mend what is broken, and wait until both workers serve again."""
        for process in self.federation.processes:
            if process.running:
                process.thaw()
            else:
                process.start()
                process.await_ready(60)
        self.federation.await_pipeline(deadline_s)
        within(deadline_s, lambda: len(self.state()["spans"]) == len(self.federation.workers))


def within(deadline_s: float, holds: Callable[[], bool]) -> None:
    """Wait until something holds; fail when it does not in time."""
    until_s = time.monotonic() + deadline_s
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if holds():
                return
        assert time.monotonic() < until_s, f"not so within {deadline_s} s"
        threading.Event().wait(0.1)
