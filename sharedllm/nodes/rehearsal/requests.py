"""A request whose every logit is noted as it is read, bit for bit."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, field

from torch import Tensor

from sharedllm.model import Sampling, Tokenizer
from sharedllm.nodes.api.service import Ask
from sharedllm.nodes.primary import Sequence

__all__ = ["Heard", "Request"]


@dataclass(frozen=True)
class Heard:
    """An answer: its tokens, and a SHA-256 of the logits that each was chosen from.

    Two are equal if those are; seconds before each token (``gaps_s``) are not compared.
    """

    tokens: tuple[int, ...]
    bits: tuple[str, ...]
    gaps_s: tuple[float, ...] = field(compare=False)


class Request(Sequence):
    """A sequence that may be waited for without an event loop; ``speaks`` is set with its first token."""

    def __init__(
        self, prompt: tuple[int, ...], sampling: Sampling, tokenizer: Tokenizer, context: int, number: int
    ) -> None:
        super().__init__(Ask(prompt, sampling), tokenizer, context, number)
        self.speaks = threading.Event()
        self._bits: list[str] = []
        self._times_s = [time.monotonic()]
        self._done = threading.Event()
        self._error: Exception | None = None

    def accept(self, logits_V: Tensor, likeliest: int) -> None:
        """As every sequence, and note the bits."""
        self._bits.append(hashlib.sha256(logits_V.contiguous().numpy().data).hexdigest())
        self._times_s.append(time.monotonic())
        super().accept(logits_V, likeliest)
        self.speaks.set()
        if self.finish_reason:
            self._done.set()

    def fail(self, error: Exception) -> None:
        """End with a sentence, which ``heard`` raises."""
        self._error = error
        self._done.set()

    def heard(self, deadline_s: float) -> Heard:
        """Wait for the whole answer. Raises ``TimeoutError``, and ``NoPipeline`` if the ring gave up."""
        if not self._done.wait(deadline_s):
            raise TimeoutError(f"Request {self.number} was not answered within {deadline_s:.0f} s.")
        if self._error is not None:
            raise self._error
        gaps_s = tuple(b - a for a, b in zip(self._times_s, self._times_s[1:], strict=False))
        return Heard(tuple(self.tokens[self.prompt_length :]), tuple(self._bits), gaps_s)
