"""A service that says what a test tells it to, when the test tells it to, and a server over it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from sharedllm.model import Tokenizer, train_tokenizer
from sharedllm.nodes.api import Ask, Said, Served, Server, create_app, make_server

DEADLINE_S = 10.0
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer() -> Tokenizer:
    """A small vocabulary that has every byte, and a chat template."""
    plain = train_tokenizer(
        ["the cat sat on the mat, user assistant system"] * 4,
        300,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    )
    made = Tokenizer.from_bytes(plain.to_bytes())
    made.chat_template = CHATML
    return made


class ScriptedStream:
    """Says the service's text token by token, then the seed; waits or fails where it is told to."""

    def __init__(self, service: StandIn, ask: Ask) -> None:
        self.service, self.ask = service, ask
        self.script = service.tokenizer.encode(f"{service.text} {ask.sampling.seed}")
        self.finish_reason, self.failovers = "", service.failovers
        self.prompt_tokens, self.cached_tokens, self.completion_tokens = len(ask.prompt), 2, 0
        self.cancelled = threading.Event()
        self._go = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._shown = ""

    def __aiter__(self) -> ScriptedStream:
        return self

    async def __anext__(self) -> Said:
        at = self.completion_tokens
        if at == self.service.hold_at and not self._go.is_set():
            self.service.held.release()
            await self._go.wait()
        if at == self.service.fail_at:
            self._end("failed")
            raise self.service.failure
        stops = any(stop in self._shown for stop in self.ask.sampling.stop)
        if self.finish_reason or stops or at >= min(len(self.script), self.ask.sampling.max_tokens):
            self._end(self.finish_reason or ("stop" if stops or at >= len(self.script) else "length"))
            raise StopAsyncIteration
        self.completion_tokens += 1
        text = self.service.tokenizer.decode(self.script[: at + 1]).removesuffix("\ufffd")
        piece, self._shown = text[len(self._shown) :], text
        others = [(token, -1.0 - token / 100) for token in range(5, 5 + self.ask.top_logprobs)]
        return Said(self.script[at], piece, self.service.logprob, tuple(others), 1.5, self.service.shares)

    def cancel(self) -> None:
        self._end("cancelled")
        if not self.service.is_deaf:
            self._go.set()
        self.cancelled.set()

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._go.set)

    def _end(self, reason: str) -> None:
        self.finish_reason = reason
        self.service.open.discard(self)


class StandIn:
    """One model with a script. Attributes set by a test hold until ``reset``."""

    model, created, context = "smol", 1_700_000_000, 256

    def __init__(self) -> None:
        self.tokenizer = tokenizer()
        self.reset()

    def reset(self) -> None:
        self.text = "the cat sat"
        self.logprob = -0.5
        self.hold_at = self.fail_at = -1
        self.failovers = 0
        self.is_deaf = False  # streams that are cancelled do not end by themselves
        self.failure: Exception = RuntimeError("secret detail")
        self.refusal: Exception | None = None
        self.refuse_after = 0
        self.is_ready = (True, "A token went through the whole pipeline.")
        self.asks: list[Ask] = []
        self.streams: list[ScriptedStream] = []
        self.open: set[ScriptedStream] = set()
        self.held = threading.Semaphore(0)
        self.explained: list[tuple[list[int], int]] = []
        self.known = [Served("smol", "base", ("smol",), ("aa" * 32,))]
        self.shares: tuple[float, ...] = ()
        self.receipts: dict[str, bytes] = {}
        self.kept_log: dict[str, Any] | None = None

    def models(self) -> list[Served]:
        return self.known

    def served(self, name: str) -> Served | None:
        return next((served for served in self.known if served.name == (name or self.known[0].name)), None)

    def receipt(self, identifier: str) -> bytes | None:
        return self.receipts.get(identifier)

    def log(self) -> dict[str, Any] | None:
        return self.kept_log

    def submit(self, ask: Ask) -> ScriptedStream:
        if self.refusal is not None and len(self.asks) >= self.refuse_after:
            raise self.refusal
        self.asks.append(ask)
        stream = ScriptedStream(self, ask)
        self.streams.append(stream)
        self.open.add(stream)
        return stream

    def state(self) -> dict[str, Any]:
        return {"model": self.model, "status": "ready", "active": len(self.open)}

    def explain(
        self, prompt: Sequence[int], token: int, said: Sequence[int] = (), model: str = ""
    ) -> dict[str, Any]:
        self.explained.append(([*prompt, *said], token))
        return {"token": token, "piece": self.tokenizer.decode([token]), "contributions": []}

    def ready(self) -> tuple[bool, str]:
        return self.is_ready

    def wait_until_held(self) -> None:
        assert self.held.acquire(timeout=DEADLINE_S), "no stream came to where it waits"


class Running:
    """A server in a thread of its own, on a free port of this machine."""

    def __init__(self, server: Server, thread: threading.Thread) -> None:
        self.server, self.thread = server, thread
        self.url = server.url
        self.port = int(server.url.rpartition(":")[2])

    def settle(self) -> None:
        """Wait until no connection and no request is left."""
        state, until = self.server.server_state, time.monotonic() + DEADLINE_S
        while state.connections or state.tasks:
            assert time.monotonic() < until, f"{len(state.connections)} connections, {len(state.tasks)} tasks"
            time.sleep(0.005)


@contextlib.contextmanager
def running(service: StandIn, drain_s: float = 5.0, **settings: Any) -> Iterator[Running]:
    """Serve ``service`` for as long as the body lasts."""
    serving = threading.Event()
    app = create_app(service, **settings)
    server = make_server(app, drain_s=drain_s, ready=lambda url: serving.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert serving.wait(DEADLINE_S)
        yield Running(server, thread)
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S + drain_s)
        assert not thread.is_alive()
