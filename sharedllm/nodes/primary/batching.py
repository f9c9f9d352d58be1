"""What goes into the next step, and whose cache makes room for it: continuous batching without any I/O.

Each step takes the newest token of every request that has one (up to a lane's share) and at most one longer
piece: a chunk of a prompt, or the replay of a request that moved here. So a long prompt delays others by one
chunk at a time. Workers keep what this book says they keep: the segments returned here are all they are told.

Memory is counted in positions. When it runs short, prompts that are kept for reuse go first (least recently
used), then the youngest request gives its cache back and is replayed later; its text does not change. A
request that fills a whole pipeline ends there; one that a smaller pipeline can't hold ends with a sentence.

The members of a mixture have one number, begin together and give way together: each waits for the others'
next token, so half of them would hold memory for nothing. Whoever came first may always take the memory of
whoever came later, in every pipeline alike, so two mixtures never wait for each other.

*Covered*: shared beginnings of prompts are computed once (whole chunks of prompts only, so that an answer
does not depend on what was cached; only between requests that wear the same adapter), n answers to one
prompt, cancelling at any moment; more adapters than workers hold, all asked for without end (others begin
while an adapter is on its way, but at most sixteen that wear one of their own). *Not covered*: fairness
between clients beyond first come, first served.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections import OrderedDict, deque
from collections.abc import Sequence as Several

from sharedllm.errors import BadPrompt, SharedLLMError
from sharedllm.nodes.primary.results import Step, composed
from sharedllm.nodes.primary.sequence import CHUNK, Sequence
from sharedllm.wire import Op, Segment

__all__ = ["Batcher", "Step"]

_ACTIVE = 64  # requests that are computed side by side
_PASSES = 16  # so many that came later and wear adapters may begin before one whose adapter is on its way


class Batcher:
    """Waiting, active and kept. ``capacity`` is what the smallest worker of the pipeline holds.

    ``worn`` are the adapters that all workers hold, by key, with the number that they know each by.
    """

    def __init__(self) -> None:
        self.capacity = 0
        self.waiting: deque[Sequence] = deque()
        self.active: list[Sequence] = []
        self.prefix_hits = 0
        self.worn: dict[str, int] = {}
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], int] = OrderedDict()
        self._ops: list[Segment] = []
        self._begun: list[Sequence] = []
        self._next_slot = 0
        self._turn = 0

    @property
    def used(self) -> int:
        """Positions that active requests and kept prompts take."""
        return sum(s.held for s in self.active) + sum(len(prefix) for _, prefix in self._kept)

    def take(self, sequence: Sequence) -> None:
        """Let a request wait for its turn, behind all that came before it."""
        bisect.insort(self.waiting, sequence, key=lambda s: s.number)

    def share(self, company: int) -> int:
        """Positions that each of so many members of a mixture may take, if they have all memory."""
        return self.capacity // company // CHUNK * CHUNK

    def opened(self, capacity: int) -> None:
        """A pipeline with empty caches stands ready: replay what was active, in its old order, first."""
        self.capacity = capacity // CHUNK * CHUNK  # workers take memory by chunks
        self.waiting.extendleft(reversed(self.active))
        for sequence in self.waiting:
            sequence.restart()
        self.active, self._ops, self._begun = [], [], []
        self._kept.clear()
        self.worn.clear()

    def end(self, sequence: Sequence) -> None:
        """Let go of a request that is finished or cancelled; whole chunks of its prompt stay for others."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence not in self.active:
            return
        self.active.remove(sequence)
        kept = sequence.prompt_length // CHUNK * CHUNK
        key = sequence.adapter, tuple(sequence.tokens[:kept])
        if key in self._kept:
            self._kept.move_to_end(key)
        elif 0 < kept <= sequence.fed and self.used + kept + sequence.held <= self.capacity:
            self._kept[key] = self._fork(sequence.slot, kept)
        self._free(sequence.slot)
        sequence.restart()

    def forget(self, adapter: str) -> None:
        """Let nothing wear an adapter any more that no request wears: prompts are kept for it in vain."""
        del self.worn[adapter]
        for key in [key for key in self._kept if key[0] == adapter]:
            self._free(self._kept.pop(key))

    def refuse(self, group: Several[Sequence], error: SharedLLMError) -> None:
        """End a waiting request, with all members of a mixture, that no queue can help."""
        for sequence in group:
            self.waiting.remove(sequence)
        for sequence in group:
            sequence.fail(error)

    def step(self, lanes: int) -> Step | None:
        """Compose the next step, or say that there is nothing to send (None)."""
        self._admit()
        single = [s for s in self.active if s.pending == 1 and not s.in_prompt]
        most = -(-sum(1 for s in self.active if not s.in_prompt) // lanes)
        chosen = [s for s in single[:most] if self._fits(s)]
        longer = [s for s in self.active if s.pending and s not in single]
        if longer:
            self._turn += 1
            candidate = longer[self._turn % len(longer)]
            chosen += [candidate] if self._fits(candidate) else []
        chosen = [s for s in chosen if s.slot is not None]
        ops, self._ops = self._ops, []
        begun, self._begun = self._begun, []
        if not chosen and not ops:
            return None
        return dataclasses.replace(composed(ops, chosen), begun=tuple(begun))

    def _admit(self) -> None:
        """Take requests off the queue while there is room for their prompts."""
        passed: list[Sequence] = []
        for _, together in itertools.groupby(list(self.waiting), key=lambda s: s.number):
            group = list(together)
            wearing = any(s.worn is not None for s in group)
            if any(s.worn is not None and s.worn.key not in self.worn for s in group):
                passed += group  # its adapter is on its way to the workers
                continue
            if wearing and any(s.passes >= _PASSES for s in passed):
                continue  # its adapter must fall out of use
            if any(self._ahead(other, sequence) for other in self.active for sequence in group):
                return  # what it shares with another is being computed; it waits to copy it
            if any(len(sequence.tokens) > self.share(sequence.company) for sequence in group):
                longest = max(group, key=lambda s: len(s.tokens))
                self.refuse(group, BadPrompt(self._too_long(len(longest.tokens), longest.company)))
            elif self._has_place(group):
                for sequence in group:
                    self.waiting.remove(sequence)
                    self.active.append(sequence)
                    self._begin(sequence)
                for sequence in passed if wearing else ():
                    sequence.passes += 1
            else:
                return

    def _has_place(self, group: list[Sequence]) -> bool:
        """Whether a request may begin; whoever came later gives way to it."""
        needed = sum(_room(min(len(s.tokens) + 1, s.context)) for s in group)
        while self.active:
            held = sum(_room(s.fed + s.pending + 1) for s in self.active)
            if held + needed <= self.capacity and len(self.active) + len(group) <= _ACTIVE:
                return True
            if self._youngest() < group[0].number:
                return False
            self._send_back(self._youngest())
        return True

    def _youngest(self) -> int:
        return max(sequence.number for sequence in self.active)

    def _send_back(self, number: int) -> None:
        """Let a request, and all members of a mixture, give their memory back and wait to be replayed."""
        for sequence in [s for s in self.active if s.number == number]:
            self._free(sequence.slot)
            self.active.remove(sequence)
            sequence.restart()
            self.take(sequence)

    def _ahead(self, other: Sequence, sequence: Sequence) -> bool:
        """Whether ``other`` is still computing chunks that ``sequence`` begins with, too."""
        if other.adapter != sequence.adapter:
            return False
        shared = _shared(other.tokens[: other.prompt_length], sequence)
        return other.in_prompt and shared > other.fed - other.fed % CHUNK

    def _begin(self, sequence: Sequence) -> None:
        """Give a request a slot: a fork of the longest prompt that begins alike, or an empty one."""
        mine = sequence.adapter
        sources = [
            (_shared(list(prefix), sequence), slot)
            for (worn, prefix), slot in self._kept.items()
            if worn == mine
        ]
        sources += [
            (min(_shared(s.tokens[: s.prompt_length], sequence), s.fed // CHUNK * CHUNK), s.slot)
            for s in self.active
            if s is not sequence and s.slot is not None and s.adapter == mine
        ]
        shared, source = max(sources, key=lambda found: found[0], default=(0, 0))
        if shared and self.used + shared <= self.capacity:
            self.prefix_hits += 1
            sequence.slot = self._fork(source, shared)
        else:
            shared, sequence.slot = 0, self._new_slot()
            if sequence.worn is not None:
                self._ops.append(Segment(Op.WEAR, sequence.slot, source=self.worn[sequence.worn.key]))
        for key, slot in list(self._kept.items()):
            if shared and slot == source:
                self._kept.move_to_end(key)
        sequence.fed = sequence.held = shared
        sequence.most = min(sequence.context, self.share(sequence.company))
        self._begun.append(sequence)
        if sequence.stream is not None:
            sequence.stream.cached_tokens = shared

    def _fits(self, sequence: Sequence) -> bool:
        """Make room for a request's next rows, if there is any to be made; else it is sent back to wait."""
        if sequence.slot is None:
            return False  # it has just made room for an older one
        needed = max(sequence.held, _room(sequence.fed + sequence.next_rows()))
        while self.used - sequence.held + needed > self.capacity:
            if self._kept:
                self._free(self._kept.popitem(last=False)[1])
                continue
            youngest = self._youngest()
            self._send_back(youngest)
            if youngest == sequence.number:
                return False
        sequence.held = needed
        return True

    def _too_long(self, tokens: int, company: int) -> str:
        each = f", {self.share(company):,} for each of {company} specialists" if company > 1 else ""
        return (
            f"The present pipeline holds {self.capacity:,} tokens at a time{each}, but this prompt and its "
            f"answer so far have {tokens:,}. Shorten the prompt, or let more machines join."
        )

    def _fork(self, source: int | None, positions: int) -> int:
        slot = self._new_slot()
        self._ops.append(Segment(Op.FORK, slot, positions, source=source or 0))
        return slot

    def _free(self, slot: int | None) -> None:
        if slot is not None:
            self._ops.append(Segment(Op.FREE, slot))

    def _new_slot(self) -> int:
        self._next_slot = (self._next_slot + 1) % (1 << 32)
        return self._next_slot


def _room(positions: int) -> int:
    """Positions for which a worker takes memory."""
    return -(-positions // CHUNK) * CHUNK


def _shared(tokens: list[int], sequence: Sequence) -> int:
    """Whole chunks of its prompt that ``sequence`` shares with the beginning of ``tokens``, in positions.

    At least one token of it is left to compute.
    """
    most = min(len(tokens), sequence.prompt_length, len(sequence.tokens) - 1, sequence.copied) // CHUNK
    for chunk in range(most):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        if tokens[part] != sequence.tokens[part]:
            return chunk * CHUNK
    return most * CHUNK
