"""The primary as the API sees it: requests in, streams out, and a picture of how it is doing."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Sequence as Tokens
from typing import Any

import torch
from torch import Tensor

from sharedllm.errors import BadPrompt
from sharedllm.model import Sampling, Tokenizer
from sharedllm.nodes.api.service import Ask
from sharedllm.nodes.errors import Busy, NoPipeline
from sharedllm.nodes.primary.loop import Loop
from sharedllm.nodes.primary.picture import picture
from sharedllm.nodes.primary.sequence import Sequence, Stream

__all__ = ["Primary"]

_REQUESTS = 128  # computed or waiting at a time
_EXPLAIN_S = 30.0
_PROBE_S = 30.0


class Primary:
    """Serves one model through the ring; implements ``nodes.api.service.Service``."""

    def __init__(self, loop: Loop, tokenizer: Tokenizer, node: str, name: str) -> None:
        self.loop, self.tokenizer, self.node, self.name = loop, tokenizer, node, name
        self.created = int(time.time())
        self.draining = False
        self._number = 0
        self._numbers = threading.Lock()
        self._explaining = threading.Lock()
        self._proved: Any = None

    @property
    def model(self) -> str:
        """The name under which the model is served."""
        return self.loop.model.name

    @property
    def context(self) -> int:
        """Positions that a prompt and its answer may take together."""
        return self.loop.model.ends.config.context

    def submit(self, ask: Ask) -> Stream:
        """Begin to continue a prompt, on an event loop. Raises ``Busy``, ``BadPrompt``, ``NoPipeline``."""
        loop = self.loop
        if self.draining:
            raise NoPipeline("This primary is shutting down; ask another, or ask again in a minute.")
        if loop.ring is None and not loop.hopeful:
            raise NoPipeline(loop.sentence)
        self._check(ask.prompt)
        if loop.requests >= _REQUESTS:
            seconds = max(1.0, loop.pace.token_s() * 100)
            raise Busy(
                f"{_REQUESTS} requests are being answered or wait; try again in {seconds:.0f} s.", seconds
            )
        sequence = self._sequence(ask)
        stream = Stream(len(ask.prompt), lambda: loop.cancel(sequence))
        sequence.stream = stream
        loop.submit(sequence)
        return stream

    def state(self) -> dict[str, Any]:
        """The live picture for the page and ``status``."""
        return {"model": self.model, "node": self.node, "name": self.name, **picture(self.loop)}

    def explain(self, prompt: Tokens[int], token: int) -> dict[str, Any]:
        """What moved ``token`` after ``prompt``: alternatives, nodes and layers. Blocks up to 30 s.

        The prompt goes through the pipeline once more, and every worker sends back what each of its layers
        made of the last position. Raises ``BadPrompt``, ``NoPipeline``.
        """
        self._check(prompt)
        if not 0 <= token < self.loop.model.ends.config.vocab_size:
            raise BadPrompt(f"Token {token} is not in this model's vocabulary.")
        with self._explaining:
            ring = self.loop.ring
            if ring is None:
                raise NoPipeline(self.loop.sentence)
            logits_V, states_SD = self._traced(tuple(prompt))
        layers = self.loop.model.ends.contributions(states_SD, token)
        if len(layers) != self.loop.model.ends.config.layers + 1:
            raise NoPipeline("The pipeline changed while the token was being explained; try again.")
        logp_V = torch.log_softmax(logits_V, dim=-1)
        best = logp_V.topk(8)
        return {
            "token": token,
            "piece": self.tokenizer.decode([token]),
            "logprob": float(logp_V[token]),
            "alternatives": [
                {"token": t, "piece": self.tokenizer.decode([t]), "logprob": logprob}
                for t, logprob in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ],
            "embedding": layers[0],
            "contributions": [
                {
                    "node": member.node,
                    "name": member.name,
                    "start": member.start,
                    "stop": member.stop,
                    "logit": sum(layers[member.start + 1 : member.stop + 1]),
                    "layers": [
                        {"layer": i, "logit": layers[i + 1]} for i in range(member.start, member.stop)
                    ],
                }
                for member in ring.route.members
            ],
            "total": sum(layers),
            "responsibilities": [],
        }

    def ready(self) -> tuple[bool, str]:
        """Whether a real token went through the present pipeline, and a sentence. Sends one if none has."""
        ring = self.loop.ring
        if ring is None or self.draining:
            return False, self.loop.sentence
        if self._proved is ring or self.loop.pace.token_s():
            return True, "Tokens go through the whole pipeline."
        try:
            self._traced((self.tokenizer.bos or 0,))
        except NoPipeline as error:
            return False, str(error)
        self._proved = ring
        return True, "A token went through the whole pipeline."

    def close(self, grace_s: float) -> None:
        """Take no more requests, let those that run finish for ``grace_s``, end the rest with a sentence."""
        self.draining = True
        until_s = time.monotonic() + grace_s
        while self.loop.requests and time.monotonic() < until_s:
            time.sleep(0.05)
        self.loop.stop("This primary was shut down; what it said so far stands. Ask again in a minute.")

    def _sequence(self, ask: Ask) -> Sequence:
        with self._numbers:
            self._number += 1
        return Sequence(ask, self.tokenizer, self.context, self._number)

    def _check(self, prompt: Tokens[int]) -> None:
        if not prompt:
            raise BadPrompt("The prompt is empty; give at least one token of text to continue.")
        most = min(self.context, self.loop.batcher.capacity or self.context) - 1
        if len(prompt) > most:
            raise BadPrompt(
                f"The prompt has {len(prompt):,} tokens; the present pipeline takes {most:,} and an answer. "
                "Shorten it."
            )
        vocab_size = self.loop.model.ends.config.vocab_size
        outside = [token for token in prompt if not 0 <= token < vocab_size]
        if outside:
            raise BadPrompt(
                f"The prompt holds token {outside[0]}, but this model's vocabulary has {vocab_size:,} tokens."
            )

    def _traced(self, prompt: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Send a prompt through and return its last logits, and its states from the embedding upwards."""
        done: concurrent.futures.Future[tuple[Tensor, Tensor]] = concurrent.futures.Future()
        sequence = self._sequence(Ask(prompt, Sampling(max_tokens=1)))
        sequence.trace = done
        self.loop.submit(sequence)
        try:
            logits_V, traces = done.result(_EXPLAIN_S)
            return logits_V, torch.cat((self.loop.model.ends.embed(prompt[-1:]), traces))
        except concurrent.futures.TimeoutError:
            self.loop.cancel(sequence)
            raise NoPipeline(f"No token came back within {_EXPLAIN_S:.0f} s. {self.loop.sentence}") from None
