"""Continue prompts: prefill once, then one token per row and step, until each row ends for its own reason.

*Covered*: rows of different lengths in one batch; a stop string is never emitted, nor any part of it, even
where it is spread over several tokens; half a character is held back until it is whole; weights with NaN are
refused with their name. *Not covered*: bit-identity across batch sizes (products of other shapes round
differently, by about 1e-5 in a logit).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sharedllm.errors import BadModelFile, BadPrompt
from sharedllm.model.cache import Cache
from sharedllm.model.sampling import Sampling, choose
from sharedllm.model.tokenizer import Tokenizer
from sharedllm.model.transformer import Transformer, join_weights

__all__ = ["Continuation", "Generation", "generate"]

OnToken = Callable[[int, int, str], object]


@dataclasses.dataclass(frozen=True)
class Generation:
    """What was written after one prompt.

    ``text`` excludes the stop string; ``tokens`` are all that were computed, except one that ends the text.
    ``finish_reason``: ``"stop"`` (the model ended, or a stop string came) or ``"length"``.
    """

    text: str
    tokens: list[int]
    finish_reason: str


def generate(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    sampling: Sampling | Sequence[Sampling],
    on_token: OnToken | None = None,
    gains_BGD: Tensor | None = None,
) -> list[Generation]:
    """Continue every prompt (text, or tokens as ``Tokenizer.chat_tokens`` makes them), all in one batch.

    ``sampling`` holds for all rows, or is one per row. A row's draws depend on its own seed alone.
    ``gains_BGD``: each row's own gains, as ``Transformer`` takes them (many users in one batch).
    ``on_token(row, token, piece)`` is told what is safe to show as it comes (``piece`` may be empty, and
    joined they are ``text``); what it raises ends the generation. Raises ``BadPrompt`` for an empty or too
    long prompt, ``BadModelFile`` when logits are not numbers.
    """
    prompt_tokens = [
        _checked(tokenizer.prompt(prompt) if isinstance(prompt, str) else list(prompt), row, model)
        for row, prompt in enumerate(prompts)
    ]
    samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    rows = [
        Continuation(index, len(tokens), chosen, tokenizer, on_token)
        for index, (tokens, chosen) in enumerate(zip(prompt_tokens, samplings, strict=True))
    ]
    if rows:
        join_weights(model)
        with torch.inference_mode():
            _decode(model, rows, prompt_tokens, gains_BGD)
    return [Generation(row.text, row.tokens, row.finish_reason) for row in rows]


def _decode(
    model: Transformer, rows: list[Continuation], prompts: list[list[int]], gains_BGD: Tensor | None
) -> None:
    """Step all rows until each has finished; rows that have are dropped from the batch."""
    context, device = model.config.context, model.embed.weight.device
    longest = max(map(len, prompts))
    more = max(row.sampling.max_tokens for row in rows)
    cache = model.cache(len(rows), capacity=min(longest + more, context))
    logits_BV = _prefill(model, prompts, longest, cache, gains_BGD)
    while True:
        best_B = logits_BV.max(dim=-1)
        if not bool(best_B.values.isfinite().all()):
            raise BadModelFile(_broken(model))
        likeliest = best_B.indices.tolist()
        for i, row in enumerate(rows):
            greedy = row.sampling.temperature == 0
            row.accept(likeliest[i] if greedy else choose(logits_BV[i], row.sampling, row.generator), context)
        going = [i for i, row in enumerate(rows) if not row.finish_reason]
        if not going:
            return
        if len(going) < len(rows):
            cache.select(going)
            rows = [rows[i] for i in going]
            gains_BGD = None if gains_BGD is None else gains_BGD[going]
        tokens_B1 = torch.tensor([[row.tokens[-1]] for row in rows], device=device)
        logits_BV = model(tokens_B1, cache, gains_BGD=gains_BGD)[:, -1]


def _prefill(
    model: Transformer, prompts: list[list[int]], longest: int, cache: Cache, gains_BGD: Tensor | None
) -> Tensor:
    """Compute right-padded prompts in one go and roll each row back over its padding: ``logits_BV``."""
    padding = [longest - len(prompt) for prompt in prompts]
    padded = [prompt + [0] * pad for prompt, pad in zip(prompts, padding, strict=True)]
    device = model.embed.weight.device
    h_BTD = model.hidden(torch.tensor(padded, device=device), cache, gains_BGD)
    cache.rollback(padding)
    last_B = torch.tensor(cache.lengths, device=device) - 1
    last_B1D = h_BTD[torch.arange(len(prompts), device=device), last_B][:, None]
    return model.logits(last_B1D, gains_BGD)[:, 0]


class Continuation:
    """One prompt's continuation: its tokens, its text, what is held back, and why it ended."""

    def __init__(
        self, index: int, length: int, sampling: Sampling, tokenizer: Tokenizer, on_token: OnToken | None
    ) -> None:
        self.index, self.length, self.sampling = index, length, sampling
        self.tokenizer, self.on_token = tokenizer, on_token
        self.generator = sampling.generator()
        self.tokens: list[int] = []
        self.text, self.finish_reason = "", ""
        self._pending = ""  # text that may turn out to be the beginning of a stop string
        self._shown, self._decoded = 0, 0  # tokens whose text is out; tokens that were decoded with them

    def accept(self, token: int, context: int) -> None:
        """Take the next token: extend the text, and finish if it ends the row."""
        if token in self.tokenizer.ends:
            self._finish("stop", "")
            return
        self.tokens.append(token)
        self.length += 1
        self._pending += self._new_text()
        cuts = [at for at in map(self._pending.find, self.sampling.stop) if at >= 0]
        if cuts:
            self._pending = self._pending[: min(cuts)]
            self._finish("stop", "", token)
        elif len(self.tokens) >= self.sampling.max_tokens or self.length > context:
            self._finish("length", self._new_text(flush=True), token)
        else:
            self._emit(len(self._pending) - _held(self._pending, self.sampling.stop), token)

    def _new_text(self, flush: bool = False) -> str:
        """The text that the newest tokens add; nothing while its last character is incomplete.

        Decoding starts some tokens back, because what a token looks like can depend on the one before it.
        """
        before = self.tokenizer.decode(self.tokens[self._shown : self._decoded])
        after = self.tokenizer.decode(self.tokens[self._shown :])
        if len(after) <= len(before) or (after.endswith("\ufffd") and not flush):
            return ""
        self._shown, self._decoded = self._decoded, len(self.tokens)
        return after[len(before) :]

    def _finish(self, reason: str, rest: str, token: int | None = None) -> None:
        self.finish_reason = reason
        self._pending += rest
        self._emit(len(self._pending), token)

    def _emit(self, length: int, token: int | None) -> None:
        piece, self._pending = self._pending[:length], self._pending[length:]
        self.text += piece
        if self.on_token is not None and (piece or token is not None):
            self.on_token(self.index, self.tokens[-1] if token is None else token, piece)


def _held(text: str, stops: tuple[str, ...]) -> int:
    """The length of the longest end of ``text`` that a stop string could begin with."""
    return max(
        (n for stop in stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])),
        default=0,
    )


def _checked(tokens: list[int], row: int, model: Transformer) -> list[int]:
    """Return ``tokens`` if the model can take them. Raises ``BadPrompt``."""
    config = model.config
    if not tokens:
        raise BadPrompt(f"Prompt {row + 1} is empty; give at least one token of text to continue.")
    if len(tokens) > config.context:
        raise BadPrompt(
            f"Prompt {row + 1} has {len(tokens):,} tokens, but this model's context is {config.context:,}; "
            f"shorten it by at least {len(tokens) - config.context:,} tokens."
        )
    outside = [token for token in tokens if not 0 <= token < config.vocab_size]
    if outside:
        raise BadPrompt(
            f"Prompt {row + 1} holds token {outside[0]}, but this model's vocabulary has "
            f"{config.vocab_size:,} tokens; encode it with this model's own tokenizer."
        )
    return tokens


def _broken(model: Transformer) -> str:
    """Say that logits are not numbers, and which weight is the cause if one is."""
    names = (
        n for n, p in model.state_dict().items() if p.is_floating_point() and not bool(p.isfinite().all())
    )
    cause = next(names, None)
    where = f"its weight {cause} holds NaN or infinity" if cause else "an activation overflowed"
    return f"The model's logits are not numbers because {where}; fetch or train the model again."
