"""Chat completions: messages in, a reply in OpenAI's shape out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharedllm.model import Tokenizer
from sharedllm.nodes.api.answer import Choice
from sharedllm.nodes.api.errors import Refused, shown, wrong
from sharedllm.nodes.api.service import Said

__all__ = ["ChatForm", "logprob", "read_messages", "token_text"]

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# what OpenAI's client writes into a reply that is sent back as history; only their emptiness is served
_EMPTY = ("annotations", "audio", "function_call", "name", "reasoning", "refusal", "tool_calls")
_FEWEST_NATS = -9999.0  # what OpenAI writes for a token that is as good as impossible; JSON has no infinity


def read_messages(raw: Sequence[Any]) -> list[dict[str, str]]:
    """Return the messages as role and text. Raises ``Refused``, naming what is wrong with which."""
    return [_message(message, f"messages[{index}]") for index, message in enumerate(raw)]


class ChatForm:
    """How chat completions are written."""

    identifier = "chatcmpl"
    whole_object = "chat.completion"
    part_object = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, top_logprobs: int | None) -> None:
        self.tokenizer, self.top_logprobs = tokenizer, top_logprobs

    def opening(self, choice: Choice) -> dict[str, Any] | None:
        return _part(choice, {"role": "assistant", "content": ""})

    def part(self, choice: Choice, said: Said) -> dict[str, Any]:
        return _part(choice, {"content": said.piece}, self._logprobs([said]))

    def closing(self, choice: Choice) -> dict[str, Any]:
        return _part(choice, {}) | {"finish_reason": choice.finish_reason}

    def whole(self, choice: Choice) -> dict[str, Any]:
        return {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": self._logprobs(choice.said),
            "finish_reason": choice.finish_reason,
        }

    def _logprobs(self, said: Sequence[Said]) -> dict[str, Any] | None:
        if self.top_logprobs is None:
            return None
        content = [
            self._entry(one.token, one.logprob)
            | {"top_logprobs": [self._entry(*pair) for pair in one.top[: self.top_logprobs]]}
            for one in said
            if one.token >= 0
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, nats: float) -> dict[str, Any]:
        text = token_text(self.tokenizer, token)
        # a part of a character has no text of its own, and its bytes are not known here
        whole = "\ufffd" not in text
        return {"token": text, "logprob": logprob(nats), "bytes": list(text.encode()) if whole else None}


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The text of one token as it is in the middle of a text (some decoders drop a leading space)."""
    once = tokenizer.decode([token])
    return tokenizer.decode([token, token])[len(once) :]


def logprob(nats: float) -> float:
    """A log-probability that JSON can hold."""
    return max(_FEWEST_NATS, nats)


def _part(choice: Choice, delta: dict[str, Any], logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _message(raw: Any, where: str) -> dict[str, str]:
    if not isinstance(raw, dict):
        raise wrong(where, raw, '{"role": …, "content": …}')
    for name, value in raw.items():
        if name not in ("role", "content") and not (name in _EMPTY and value in (None, [], "")):
            raise Refused(
                f"{where}.{name[:100]} is not supported by this server; a message has a role and a content.",
                param=f"{where}.{name[:100]}",
                code="unsupported_parameter",
            )
    role = raw.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(f"{where}.role", role, f"one of {', '.join(_ROLES)}")
    return {"role": _ROLES[role], "content": _content(raw.get("content"), f"{where}.content")}


def _content(raw: Any, where: str) -> str:
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, list) or not raw:
        raise wrong(where, raw, "text, or a list of text parts")
    return "".join(_text_of(part, f"{where}[{index}]") for index, part in enumerate(raw))


def _text_of(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind == "text" and isinstance(part.get("text"), str) and len(part) == 2:
        return str(part["text"])
    if isinstance(kind, str) and kind != "text":
        raise Refused(
            f"{where} is of type {shown(kind)}; this server reads text only.",
            param=where,
            code="unsupported_content",
        )
    raise wrong(where, part, '{"type": "text", "text": …}')
