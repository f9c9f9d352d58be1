"""What a request may ask for: each parameter with what is expected of it, and those that are not supported.

Names and defaults are OpenAI's; ``top_k`` is ours. A parameter that is unknown, or known to OpenAI but not
served here, is refused by its name unless its value changes nothing.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Self

import pydantic
from fastapi import Request
from pydantic import Field

from sharedllm.model import Sampling
from sharedllm.nodes.api.errors import Refused, shown, wrong
from sharedllm.nodes.api.service import Served, Service

__all__ = [
    "MAX_CHOICES",
    "MAX_TOP_LOGPROBS",
    "Asked",
    "ChatAsked",
    "CompletionAsked",
    "asked_model",
    "client_key",
]

MAX_CHOICES = 32
MAX_TOP_LOGPROBS = 20
_SEEDS = 2**63
# what clients send when their user named no model; huggingface_hub writes "dummy"
_ANY_MODEL = (None, "", "dummy")
_KEY = re.compile(r"[0-9a-f]{64}")

# parameters of OpenAI's that are not served, with the values that change nothing: those are let through
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "metadata": ({},),
    "service_tier": ("auto", "default"),
    "store": (False,),
}
_CHAT_NEUTRAL: dict[str, tuple[Any, ...]] = _NEUTRAL | {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "tool_choice": ("none",),
    "tools": ([],),
    "verbosity": (),
    "web_search_options": (),
}
_COMPLETION_NEUTRAL: dict[str, tuple[Any, ...]] = _NEUTRAL | {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}

_MOST_STOPS, _LONGEST_STOP = 16, 1000


def _stops(value: Any) -> Any:
    """A text, or a short list of texts, as a list."""
    given = value if isinstance(value, list) else [] if value is None else [value]
    if len(given) > _MOST_STOPS or not all(
        isinstance(stop, str) and 1 <= len(stop) <= _LONGEST_STOP for stop in given
    ):
        raise ValueError
    return given


def _stream_options(value: Any) -> Any:
    """Let through what is understood: whether a last chunk shall count the tokens."""
    if value is None or (
        isinstance(value, dict)
        and type(value.get("include_usage", False)) is bool
        and value.get("include_obfuscation", False) is False
        and not value.keys() - {"include_usage", "include_obfuscation"}
    ):
        return value
    raise ValueError


class Asked(pydantic.BaseModel):
    """What chat and plain completions have in common; a field's description is what a person is told."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True)

    model: str | None = Field(None, max_length=512, description="the name of a model")
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description=f"a whole number from 1 to {MAX_CHOICES}")
    temperature: float | None = Field(None, ge=0, le=2, description="a number from 0 to 2")
    top_p: float | None = Field(None, gt=0, le=1, description="a number above 0 and at most 1")
    top_k: int | None = Field(None, ge=0, le=10**9, description="a whole number ≥ 0 (0 keeps all tokens)")
    seed: int | None = Field(None, ge=-_SEEDS, lt=_SEEDS, description="a whole number from −2^63 to 2^63 − 1")
    stop: Annotated[Any, pydantic.AfterValidator(_stops)] = Field(
        (),
        description=f"text, or at most {_MOST_STOPS} texts, of 1 to {_LONGEST_STOP:,} characters each",
    )
    stream: bool | None = Field(None, description="true or false")
    stream_options: Annotated[Any, pydantic.AfterValidator(_stream_options)] = Field(
        None, description='{"include_usage": true or false}'
    )
    max_tokens: int | None = Field(None, ge=1, le=10**9, description="a whole number ≥ 1")
    user: str | None = Field(None, max_length=512, description="text of at most 512 characters")

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        return bool((self.stream_options or {}).get("include_usage"))

    def top_logprobs_wanted(self) -> int | None:
        """How many alternatives are wanted for each token; None: no log-probabilities at all."""
        raise NotImplementedError

    def most_tokens(self) -> int | None:
        """The most tokens to write; None: as many as fit."""
        return self.max_tokens

    def sampling(self, room: int) -> Sampling:
        """How to continue a prompt after which ``room`` tokens fit. Raises ``BadPrompt``."""
        wanted = self.most_tokens()
        return Sampling(
            temperature=1.0 if self.temperature is None else float(self.temperature),
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else float(self.top_p),
            seed=secrets.randbelow(_SEEDS) if self.seed is None else self.seed,
            max_tokens=room if wanted is None else min(wanted, room),
            stop=tuple(self.stop),
        )

    @classmethod
    def _neutral(cls) -> dict[str, tuple[Any, ...]]:
        raise NotImplementedError

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """Check a request's JSON. Raises ``Refused`` with a sentence that names the parameter."""
        known = {}
        for name, value in body.items():
            if name in cls.model_fields:
                known[name] = value
            else:
                _refuse_unless_neutral(name, value, cls._neutral(), sorted(cls.model_fields))
        try:
            return cls.model_validate(known)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            raise Refused(f"{name} is missing; add it to the request.", param=name, code="missing")
        raise wrong(name, body[name], str(cls.model_fields[name].description))


class ChatAsked(Asked):
    """``POST /v1/chat/completions``; ``chat`` looks into the messages."""

    messages: list[Any] = Field(min_length=1, max_length=10_000, description="a list of 1 to 10,000 messages")
    max_completion_tokens: int | None = Field(None, ge=1, le=10**9, description="a whole number ≥ 1")
    logprobs: bool | None = Field(None, description="true or false")
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS, description=f"a whole number from 0 to {MAX_TOP_LOGPROBS}"
    )

    def top_logprobs_wanted(self) -> int | None:
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise Refused(
                f"top_logprobs is {self.top_logprobs} but logprobs is not true; set logprobs to true.",
                param="top_logprobs",
                code="invalid_value",
            )
        return None

    def most_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @classmethod
    def _neutral(cls) -> dict[str, tuple[Any, ...]]:
        return _CHAT_NEUTRAL


class CompletionAsked(Asked):
    """``POST /v1/completions``; ``completions`` looks into the prompt."""

    prompt: Any = Field(description="text, a list of texts, token ids, or a list of lists of token ids")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS, description=f"a whole number from 0 to {MAX_TOP_LOGPROBS}"
    )

    def top_logprobs_wanted(self) -> int | None:
        return self.logprobs

    def most_tokens(self) -> int | None:
        return 16 if self.max_tokens is None else self.max_tokens  # OpenAI's default

    @classmethod
    def _neutral(cls) -> dict[str, tuple[Any, ...]]:
        return _COMPLETION_NEUTRAL


def asked_model(service: Service, name: str | None) -> Served:
    """What a request's model names; ``""`` and None are the default. Raises ``Refused``."""
    served = service.served("" if name in _ANY_MODEL else str(name))
    if served is None:
        known = ", ".join(repr(model.name) for model in service.models())
        raise Refused(
            f"The model {str(name)[:100]!r} is not served here; this server has {known}.",
            status=404,
            param="model",
            code="model_not_found",
        )
    return served


def client_key(request: Request) -> str | None:
    """The Ed25519 public key that the answer's receipt is to be bound to. Raises ``Refused``."""
    given = request.headers.get("x-sharedllm-client-key")
    if given is not None and not _KEY.fullmatch(given):
        raise wrong("x-sharedllm-client-key", given, "an Ed25519 public key as 64 lower-case hex digits")
    return given


def _refuse_unless_neutral(
    name: str, value: Any, neutral: Mapping[str, tuple[Any, ...]], known: list[str]
) -> None:
    if name not in neutral:
        raise Refused(
            f"{name[:100]} is not a parameter of this request; leave it out. Known are {', '.join(known)}.",
            param=name[:100],
            code="unknown_parameter",
        )
    if value is not None and value not in neutral[name]:
        raise Refused(
            f"{name} is {shown(value)}, which this server does not support; leave it out.",
            param=name,
            code="unsupported_parameter",
        )
