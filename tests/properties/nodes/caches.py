"""What a batcher works for, as far as it knows it: caches of workers, letters as tokens, mixtures."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any, cast

import torch

from sharedllm.engines.slots import Slots
from sharedllm.engines.wardrobe import Wardrobe
from sharedllm.model import Config, Sampling, Tokenizer
from sharedllm.nodes.api.service import Ask
from sharedllm.nodes.primary.batching import Batcher, Step
from sharedllm.nodes.primary.sequence import Sequence
from sharedllm.wire import Adapter, Codec, Op, Segment, encode

CONTEXT = 400
CONFIG = Config(
    vocab_size=97, width=2, layers=1, heads=1, kv_heads=1, head_width=2, hidden=2, context=CONTEXT
)


class _Letters:
    """A tokenizer as far as a continuation needs one: each token is a letter, and none is an end."""

    ends: frozenset[int] = frozenset()

    def decode(self, tokens: list[int]) -> str:
        return "".join(chr(65 + token % 26) for token in tokens)


def sequence(prompt: tuple[int, ...], number: int, most: int) -> Sequence:
    ask = Ask(prompt, Sampling(max_tokens=most))
    return Sequence(ask, cast(Tokenizer, _Letters()), CONTEXT, number)


def next_token(tokens: list[int]) -> int:
    """A model: what comes next depends on every token before."""
    return (sum((i + 1) * token for i, token in enumerate(tokens)) + len(tokens)) % 97


ADAPTERS = ("code", "verse", "drama")


@dataclasses.dataclass(frozen=True, eq=False)
class Wearing:
    """An adapter as far as the batcher knows one."""

    key: str


class Choir:
    """A mixture as far as its members know one: goes on when the last of them has been heard."""

    def __init__(self, members: list[Sequence], batcher: Callable[[], Batcher]) -> None:
        self.members, self.batcher, self.heard_of = members, batcher, set[int]()
        for member, key in zip(members, ADAPTERS, strict=False):
            member.mixed, member.company, member.telling = cast(Any, self), len(members), members[0].telling
            member.worn = cast(Any, Wearing(key))
            member.score(100)

    def heard(self, member: Sequence, logits_V: torch.Tensor) -> None:
        self.heard_of.add(self.members.index(member))
        if len(self.heard_of) < len(self.members) or member.telling.finish_reason:
            return
        self.heard_of.clear()
        token = next_token(member.tokens)
        member.telling.say(token, torch.zeros(97), min(one.most for one in self.members))
        for one in self.members:
            if member.telling.finish_reason:
                self.batcher().end(one)
            else:
                one.tokens.append(token)

    def fail(self, error: Exception) -> None:
        for one in self.members:
            self.batcher().end(one)


class Worker:
    """A worker's caches, and for each slot which token lies where and how its piece was cut."""

    def __init__(self, capacity: int) -> None:
        wardrobe = Wardrobe(torch.ones(2, CONFIG.width), len(ADAPTERS) * 2 * CONFIG.width * 4)
        for number, key in enumerate(ADAPTERS, 1):
            body = encode(torch.full((2, CONFIG.width), float(number)), Codec.FP32)
            lent = Adapter(number, hashlib.sha256(body).hexdigest(), 1, CONFIG.width)
            wardrobe.adopt(lent, body, ())
            assert wardrobe.place(number) == number, key
        self.slots = Slots(CONFIG, 1, capacity, wardrobe)
        self.held: dict[int, list[tuple[int, Segment]]] = {}

    def take(self, step: Step) -> None:
        """Do as told, as ``Stage.run`` does; ``Slots`` raises for what it can't hold."""
        at, rows_for = 0, []
        for segment in step.segments:
            self.slots.apply(segment)
            if segment.op is Op.FREE:
                self.held.pop(segment.slot, None)
            elif segment.op is Op.WEAR:
                self.held[segment.slot] = []
            elif segment.op is Op.FORK:
                self.held[segment.slot] = self.held[segment.source][: segment.start]
            else:
                rows_for.append(segment.slot)
                self.slots[segment.slot].length += segment.rows
                tokens = step.tokens[at : at + segment.rows]
                at += segment.rows
                self.held.setdefault(segment.slot, []).extend((token, segment) for token in tokens)
        assert at == len(step.tokens)
        assert len(set(rows_for)) == len(rows_for)
