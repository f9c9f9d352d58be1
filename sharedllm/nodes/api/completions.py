"""Plain completions: prompts as text or token ids in, their continuations in OpenAI's shape out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharedllm.model import Tokenizer
from sharedllm.nodes.api.answer import Choice
from sharedllm.nodes.api.chat import logprob, token_text
from sharedllm.nodes.api.errors import Refused, wrong
from sharedllm.nodes.api.schemas import MAX_CHOICES, CompletionAsked
from sharedllm.nodes.api.service import Said

__all__ = ["CompletionForm", "checked_ids", "encode_prompts", "read_prompts"]

Prompt = str | list[int]


def read_prompts(asked: CompletionAsked, vocab_size: int) -> list[Prompt]:
    """Return each prompt as text or token ids, not encoded yet. Raises ``Refused``."""
    raw = asked.prompt
    several = isinstance(raw, list) and raw and not isinstance(raw[0], int)
    prompts = raw if several else [raw]
    if len(prompts) * asked.choices > MAX_CHOICES:
        raise Refused(
            f"{len(prompts):,} prompts with {asked.choices} choices each were asked for; this server makes "
            f"at most {MAX_CHOICES} choices at once. Send fewer in one request.",
            param="prompt",
            code="invalid_value",
        )
    return [_prompt(prompt, vocab_size) for prompt in prompts]


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Turn texts into token ids, with the beginning that the model expects. Raises ``BadPrompt``."""
    return [tokenizer.prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]


def checked_ids(raw: Any, vocab_size: int, param: str) -> list[int]:
    """Return a list of this model's token ids. Raises ``Refused``."""
    if not isinstance(raw, list):
        raise wrong(param, raw, "a list of token ids")
    for token in raw:
        if type(token) is not int or not 0 <= token < vocab_size:
            raise wrong(param, token, f"token ids from 0 to {vocab_size - 1:,}")
    return raw


class CompletionForm:
    """How plain completions are written, streamed or not."""

    identifier = "cmpl"
    whole_object = "text_completion"
    part_object = "text_completion"

    def __init__(self, tokenizer: Tokenizer, top_logprobs: int | None) -> None:
        self.tokenizer, self.top_logprobs = tokenizer, top_logprobs

    def opening(self, choice: Choice) -> dict[str, Any] | None:
        return None

    def part(self, choice: Choice, said: Said) -> dict[str, Any]:
        return _part(choice, said.piece, self._logprobs([said], choice.length))

    def closing(self, choice: Choice) -> dict[str, Any]:
        return _part(choice, "", None) | {"finish_reason": choice.finish_reason}

    def whole(self, choice: Choice) -> dict[str, Any]:
        logprobs = self._logprobs(choice.said, 0)
        return _part(choice, choice.text, logprobs) | {"finish_reason": choice.finish_reason}

    def _logprobs(self, said: Sequence[Said], offset: int) -> dict[str, Any] | None:
        """Parallel lists, one entry for each token; the chosen token is always among its alternatives."""
        if self.top_logprobs is None:
            return None
        lists: dict[str, list[Any]] = {
            name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        }
        for one in said:
            if one.token >= 0:
                pairs = [*one.top[: self.top_logprobs], (one.token, one.logprob)]
                top: dict[str, float] = {}
                for token, nats in pairs:  # two tokens may have one text (halves of characters)
                    top.setdefault(token_text(self.tokenizer, token), logprob(nats))
                lists["tokens"].append(token_text(self.tokenizer, one.token))
                lists["token_logprobs"].append(logprob(one.logprob))
                lists["top_logprobs"].append(top)
                lists["text_offset"].append(offset)
            offset += len(one.piece)
        return lists


def _part(choice: Choice, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    return {"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": None}


def _prompt(raw: Any, vocab_size: int) -> Prompt:
    if isinstance(raw, str):
        return raw
    if isinstance(raw, list):
        return checked_ids(raw, vocab_size, "prompt")
    raise wrong("prompt", raw, "text, token ids, or a list of either")
