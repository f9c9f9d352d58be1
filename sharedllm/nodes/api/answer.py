"""One request's walk: tokens in, streams heard, chunks or one object out, whatever happens in between.

*Covered*: an error before the first token has its own HTTP status, also when streaming; one after it is an
event after the text so far; a client that leaves frees its places at once, while it waits too. *Not covered*:
repair of a pipeline; a stream raises only what the service could not mend.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from sharedllm.nodes.api.errors import ClientGone, Refused, refusal
from sharedllm.nodes.api.schemas import Asked
from sharedllm.nodes.api.service import Ask, Said, Served, Service, Stream
from sharedllm.nodes.api.streaming import Events, Voices, unless_gone
from sharedllm.nodes.operations import metrics
from sharedllm.nodes.operations.logs import request_id

__all__ = ["Answer", "Choice", "Form", "checked_prompt"]

_BEAT_S = 10.0


@dataclasses.dataclass
class Choice:
    """What one stream has said so far."""

    index: int
    stream: Stream
    said: list[Said] = dataclasses.field(default_factory=list)
    length: int = 0  # of the text so far, in characters
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        return "".join(said.piece for said in self.said)

    @property
    def tokens(self) -> list[Said]:
        """What was said with a token of its own."""
        return [said for said in self.said if said.token >= 0]


class Form(Protocol):
    """How one route writes a choice: the first, each and the last part of a stream, or all at once."""

    identifier: str  # what an id begins with
    whole_object: str
    part_object: str

    def opening(self, choice: Choice) -> dict[str, Any] | None: ...
    def part(self, choice: Choice, said: Said) -> dict[str, Any]: ...
    def closing(self, choice: Choice) -> dict[str, Any]: ...
    def whole(self, choice: Choice) -> dict[str, Any]: ...


class Answer(Response):
    """The response to ``asked``: prompts are made in a thread, then submitted, then heard to their end."""

    def __init__(
        self,
        service: Service,
        served: Served,
        asked: Asked,
        form: Form,
        prompts: Callable[[], list[tuple[int, ...]]],
        client_key: str | None = None,
    ) -> None:
        self.service, self.asked, self.form, self.prompts = service, asked, form, prompts
        self.served, self.client_key = served, client_key
        self.top_logprobs = asked.top_logprobs_wanted()
        self.begun = time.monotonic()
        self.head = {
            "id": f"{form.identifier}-{uuid.uuid4().hex}",
            "object": form.part_object if asked.stream else form.whole_object,
            "created": int(time.time()),
            "model": served.name,
        }
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = f"{(scope.get('client') or ('', 0))[0]} {self.asked.user or ''}".strip()
        try:
            await unless_gone(receive, self._answer(client, scope, receive, send))
        except ClientGone:
            metrics.requests.labels("cancelled").inc()

    async def _answer(self, client: str, scope: Scope, receive: Receive, send: Send) -> None:
        asks = await asyncio.to_thread(self._asks, client)
        async with Voices(self.service, asks) as voices:
            choices = [Choice(index, stream) for index, stream in enumerate(voices.streams)]
            try:
                if self.asked.stream:
                    await self._stream(voices, choices, Events(send))
                else:
                    whole = await self._collect(voices, choices)
                    await JSONResponse(whole)(scope, receive, send)
            except ClientGone:
                raise
            except Exception:
                metrics.requests.labels("failed").inc()
                raise
            finally:
                self._count(choices)

    def _asks(self, client: str) -> list[Ask]:
        """Make every prompt, and one ask for each of its choices; their seeds follow one another."""
        asks: list[Ask] = []
        for prompt in self.prompts():
            room = self.service.context - len(prompt) + 1  # the last token needs no place of its own
            sampling = self.asked.sampling(room)
            for i in range(self.asked.choices):
                one = dataclasses.replace(sampling, seed=sampling.seed + i)
                asks.append(
                    Ask(
                        prompt,
                        one,
                        self.top_logprobs or 0,
                        request_id.get(),
                        client,
                        self.served.name,
                        self.client_key,
                        self._receipt(len(asks)),
                    )
                )
        return asks

    async def _collect(self, voices: Voices, choices: list[Choice]) -> dict[str, Any]:
        while any(choice.finish_reason is None for choice in choices):
            heard = await voices.next()
            if heard is not None:
                self._take(choices, *heard)
        return self.head | {
            "choices": [self.form.whole(c) | {"sharedllm": self._trace(c)} for c in choices],
            "usage": self._usage(choices),
        }

    async def _stream(self, voices: Voices, choices: list[Choice], events: Events) -> None:
        heard = await voices.next(_BEAT_S)  # an error until now is answered with a status of its own
        await events.open()
        try:
            openings = [opening for c in choices if (opening := self.form.opening(c))]
            await events.data(*(self._chunk(opening) for opening in openings))
            while True:
                if heard is None:
                    await events.beat()
                else:
                    await events.data(self._heard(choices, *heard))
                if all(choice.finish_reason for choice in choices):
                    break
                heard = await voices.next(_BEAT_S)
            if self.asked.include_usage:
                await events.data(self.head | {"choices": [], "usage": self._usage(choices)})
        except ClientGone:
            raise
        except Exception as error:
            metrics.requests.labels("failed").inc()
            await events.data(refusal(error).body())
        await events.done()

    def _heard(self, choices: list[Choice], index: int, said: Said | None) -> dict[str, Any]:
        """The chunk that says what was heard."""
        choice = self._take(choices, index, said)
        if said is None:
            return self._chunk(self.form.closing(choice), self._trace(choice, tokens=False))
        more: dict[str, Any] = {"token": said.token, "logprob": said.logprob, "ms": said.ms}
        if said.responsibilities:
            more["responsibilities"] = self._shares(said)
        chunk = self._chunk(self.form.part(choice, said), more)
        choice.length += len(said.piece)
        return chunk

    def _take(self, choices: list[Choice], index: int, said: Said | None) -> Choice:
        choice = choices[index]
        if said is None:
            reason = choice.stream.finish_reason
            if reason == "cancelled":
                raise Refused(
                    "The server ended this request before it was complete; send it again.",
                    status=503,
                    code="cancelled",
                    kind="service_unavailable",
                )
            choice.finish_reason = reason
            return choice
        if not any(c.said for c in choices):
            metrics.first_token_seconds.observe(time.monotonic() - self.begun)
        choice.said.append(said)
        return choice

    def _chunk(self, part: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
        usage = {"usage": None} if self.asked.include_usage else {}
        return self.head | {"choices": [part]} | usage | ({"sharedllm": more} if more else {})

    def _trace(self, choice: Choice, tokens: bool = True) -> dict[str, Any]:
        """What is ours to add: tokens by id, who is responsible for each, the receipt's id, failovers."""
        more: dict[str, Any] = {"failovers": choice.stream.failovers, "receipt": self._receipt(choice.index)}
        if tokens:
            more["tokens"] = [said.token for said in choice.tokens]
            if len(self.served.members) > 1:
                more["responsibilities"] = [self._shares(said) for said in choice.tokens]
        return more

    def _shares(self, said: Said) -> dict[str, float]:
        return dict(zip(self.served.members, said.responsibilities, strict=True))

    def _receipt(self, index: int) -> str:
        """An id that nobody guesses: a receipt tells which tokens were said."""
        return f"{self.head['id']}-{index}"

    def _usage(self, choices: list[Choice]) -> dict[str, Any]:
        first = choices[:: self.asked.choices]  # a prompt counts once, however many choices it has
        prompt = sum(choice.stream.prompt_tokens for choice in first)
        completion = sum(choice.stream.completion_tokens for choice in choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": sum(c.stream.cached_tokens for c in first)},
        }

    def _count(self, choices: list[Choice]) -> None:
        for choice in choices:
            if choice.finish_reason:
                metrics.requests.labels(choice.finish_reason).inc()
            metrics.tokens.labels("prompt").inc(choice.stream.prompt_tokens)
            metrics.tokens.labels("cached").inc(choice.stream.cached_tokens)


def checked_prompt(tokens: list[int], context: int, param: str) -> tuple[int, ...]:
    """The prompt, if the model's context holds it. Raises ``Refused``."""
    if not tokens:
        raise Refused(f"{param} is empty; give at least one token of text to continue.", param=param)
    if len(tokens) > context:
        raise Refused(
            f"The prompt has {len(tokens):,} tokens, but this model's context is {context:,}; "
            f"shorten it by at least {len(tokens) - context:,} tokens.",
            param=param,
            code="context_length_exceeded",
        )
    return tuple(tokens)
