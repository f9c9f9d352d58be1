"""One request on its way: which tokens it has, which of them the workers have seen, and who is listening."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sharedllm.model import Continuation, Tokenizer, choose
from sharedllm.nodes.api.service import Ask, Said
from sharedllm.nodes.operations import metrics
from sharedllm.wire import Want

if TYPE_CHECKING:
    from sharedllm.nodes.primary.audit import Tape
    from sharedllm.nodes.primary.federated.mixed import Mixed
    from sharedllm.nodes.primary.federated.wardrobe import Worn

__all__ = ["CHUNK", "Sequence", "Stream", "Telling"]

CHUNK = 64
"""Positions that a prompt is cut into. Fixed, so that a token's bits don't depend on how busy the ring is."""

_END: Any = object()


class Stream:
    """What a caller reads, on its own event loop, while the ring's thread writes."""

    def __init__(self, prompt_tokens: int, cancel: Callable[[], None]) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = self.cached_tokens = self.failovers = 0
        self.finish_reason = ""
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Said | Exception] = asyncio.Queue()
        self._deserted = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Said:
        said = await self._queue.get()
        if said is _END:
            self._queue.put_nowait(_END)
            raise StopAsyncIteration
        if isinstance(said, Exception):
            self._queue.put_nowait(_END)
            raise said
        return said

    def cancel(self) -> None:
        """Stop the request and free what it holds."""
        self._cancel()

    def write(self, said: Said | Exception) -> None:
        """Hand something to the reader, from any thread; nobody may be there any more."""
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, said)
        except RuntimeError:  # its event loop is closed
            if not self._deserted:
                self._deserted = True
                self._cancel()

    def end(self, reason: str) -> None:
        """Tell the reader that nothing more comes."""
        self.finish_reason = self.finish_reason or reason
        self.write(_END)


class Telling:
    """What one request says: each token chosen, kept as text, and told to whoever reads."""

    def __init__(self, ask: Ask, tokenizer: Tokenizer) -> None:
        self.ask = ask
        self.stream: Stream | None = None
        self.tape: Tape | None = None
        self._pieces: list[str] = []
        self._text = Continuation(0, len(ask.prompt), ask.sampling, tokenizer, self._said)
        self._last_s = time.monotonic()

    @property
    def finish_reason(self) -> str:
        """Why the text ended, or ``""``."""
        return self._text.finish_reason

    @property
    def length(self) -> int:
        """Tokens of the text so far."""
        return len(self._text.tokens)

    def choose(self, logits_V: Tensor, likeliest: int | None = None) -> int:
        """The next token: drawn as the request says, or the likeliest, which may be known already."""
        sampling = self.ask.sampling
        if sampling.temperature == 0 and likeliest is not None:
            return likeliest
        return choose(logits_V, sampling, self._text.generator)

    def say(
        self, token: int, logits_V: Tensor, most: int, weighed: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """Take a token into the text, tell the reader, and note it for the audit.

        ``most`` is where the text must end. ``weighed`` are the members' log-probabilities ``a_N`` of it and
        their log-weights ``logw_N``, where there are several.
        """
        metrics.tokens.labels("generated").inc()
        now_s = time.monotonic()
        ms, self._last_s = 1e3 * (now_s - self._last_s), now_s
        before = len(self._text.tokens)
        self._text.accept(token, most)
        piece, self._pieces = "".join(self._pieces), []
        if len(self._text.tokens) > before:
            self._tell(token, piece, ms, logits_V, weighed)
        elif piece and self.stream is not None:
            self.stream.write(Said(-1, piece, 0.0, (), ms))
        if self.finish_reason:
            self._end(self.finish_reason)

    def cancel(self) -> None:
        """End, for nobody wants to hear more."""
        self._end("cancelled")

    def fail(self, error: Exception) -> None:
        """End with a sentence; what was said so far stays with the reader."""
        if self.tape is not None:
            self.tape.end("failed")
        if self.stream is not None:
            self.stream.write(error)

    def _tell(
        self, token: int, piece: str, ms: float, logits_V: Tensor, weighed: tuple[Tensor, Tensor] | None
    ) -> None:
        if self.stream is None and self.tape is None:
            return
        total = logits_V.logsumexp(dim=-1).double()
        joint = logits_V[token].double() - total
        a_N, logw_N = weighed or (joint[None], torch.zeros(1, dtype=torch.float64))
        if self.tape is not None:
            self.tape.token(token, a_N, logw_N, joint)
        if self.stream is not None:
            self.stream.completion_tokens += 1
            shares = tuple((a_N + logw_N).softmax(0).tolist()) if weighed else ()
            best = logits_V.topk(min(self.ask.top_logprobs, len(logits_V)))
            top = tuple(zip(best.indices.tolist(), (best.values - total).tolist(), strict=True))
            self.stream.write(Said(token, piece, float(joint), top, ms, shares))

    def _end(self, reason: str) -> None:
        if self.tape is not None:  # first, for the reader may ask for the receipt at once
            self.tape.end(reason)
        if self.stream is not None:
            self.stream.end(reason)

    def _said(self, index: int, token: int, piece: str) -> None:
        self._pieces.append(piece)


class Sequence:
    """A prompt and its continuation. ``fed`` positions were sent to the workers of the present pipeline.

    ``held`` is for how many they hold memory; ``life`` counts beginnings, so that a result for an earlier one
    is known as such. ``most`` is where the text must end: the model's context, or what the pipeline holds.
    ``trace``, if set, takes the logits and every layer's output at the last position, and no token is chosen.
    ``worn`` is the adapter that it wears. ``mixed`` chooses for it if it is a member of a mixture; ``number``
    is then the same for all members, of which the same pipeline computes ``company``. ``passes`` counts who
    came later and began earlier, wearing another adapter.

    What goes next follows from these numbers alone: chunks of the prompt, then rows. A request that moves to
    other workers begins at 0 again, and the same rule replays it.
    """

    def __init__(self, ask: Ask, tokenizer: Tokenizer, context: int, number: int) -> None:
        self.ask, self.context, self.number = ask, context, number
        self.most = context
        self.tokens = list(ask.prompt)
        self.prompt_length = len(ask.prompt)
        self.telling = Telling(ask, tokenizer)
        self.slot: int | None = None
        self.fed = self.held = 0
        self.life = self.passes = 0
        self.company = 1
        self.worn: Worn | None = None
        self.mixed: Mixed | None = None
        self.trace: concurrent.futures.Future[tuple[Tensor, Tensor]] | None = None
        self.scores: list[Tensor] = []
        self._unscored = self._score_until = 0

    @property
    def stream(self) -> Stream | None:
        """Who listens."""
        return self.telling.stream

    @stream.setter
    def stream(self, stream: Stream) -> None:
        self.telling.stream = stream

    @property
    def adapter(self) -> str:
        """The key of the adapter that it wears (``""``: none)."""
        return self.worn.key if self.worn is not None else ""

    @property
    def pending(self) -> int:
        """Tokens that the workers have not seen yet."""
        return len(self.tokens) - self.fed

    @property
    def in_prompt(self) -> bool:
        """Whether the next thing to send is a part of the prompt."""
        return self.fed < self.prompt_length

    @property
    def copied(self) -> int:
        """How many of its first positions may be copied from another: none that are still to be scored."""
        return self._unscored if self._unscored < self._score_until else len(self.tokens)

    @property
    def finish_reason(self) -> str:
        """Why the text ended, or ``""``."""
        return self.telling.finish_reason

    def score(self, most: int) -> None:
        """Let it note how likely the last ``most`` of its present tokens were, each after those before."""
        self._score_until = len(self.tokens) - 1
        self._unscored = max(0, self._score_until - most)

    def scored(self, start: int, a_R: Tensor) -> None:
        """Note the log-probabilities of the tokens that follow the positions from ``start`` on (nats)."""
        fresh = a_R[max(0, self._unscored - start) : max(0, self._score_until - start)]
        if len(fresh) and start <= self._unscored:
            self.scores.append(fresh)
            self._unscored += len(fresh)

    def next_rows(self) -> int:
        """How many positions go in the next segment: at most up to the next multiple of ``CHUNK``."""
        if self.in_prompt:
            return min(CHUNK - self.fed % CHUNK, self.prompt_length - self.fed)
        return min(CHUNK, self.pending)

    def want(self, rows: int) -> Want:
        """Which results of the next ``rows`` positions are of use."""
        stop = self.fed + rows
        if min(stop, self._score_until) > self._unscored:
            return Want.ALL
        if stop < len(self.tokens):
            return Want.NONE
        return Want.LAST if self.trace is None else Want.TRACE

    def restart(self) -> None:
        """Begin anew: the workers know nothing."""
        self.slot, self.fed, self.held = None, 0, 0
        self.life += 1

    def accept(self, logits_V: Tensor, likeliest: int) -> None:
        """Take the logits of the next token: choose it, or let the mixture choose that it is a member of."""
        if self.mixed is not None:
            self.mixed.heard(self, logits_V)
            return
        token = self.telling.choose(logits_V, likeliest)
        self.telling.say(token, logits_V, self.most)
        if self.telling.length > len(self.tokens) - self.prompt_length:
            self.tokens.append(token)

    def fail(self, error: Exception) -> None:
        """End with a sentence."""
        if self.mixed is not None:
            self.mixed.fail(error)
        else:
            self.telling.fail(error)
        if self.trace is not None and not self.trace.done():
            self.trace.set_exception(error)
