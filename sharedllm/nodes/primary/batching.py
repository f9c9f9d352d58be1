"""What goes into the next step, and whose cache makes room for it: continuous batching without any I/O.

Each step takes the newest token of every request that has one (up to a lane's share) and at most one longer
piece: a chunk of a prompt, or the replay of a request that moved here. So a long prompt delays others by one
chunk at a time. Workers keep what this book says they keep: the segments returned here are all they are told.

Memory is counted in positions. When it runs short, prompts that are kept for reuse go first (least recently
used), then the youngest request gives its cache back and is replayed later; its text does not change. A
request that fills a whole pipeline ends there; one that a smaller pipeline can't hold ends with a sentence.

*Covered*: shared beginnings of prompts are computed once (whole chunks of prompts only, so that an answer
does not depend on what was cached), n answers to one prompt, cancelling at any moment. *Not covered*:
fairness between clients beyond first come, first served.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, deque

from sharedllm.errors import BadPrompt
from sharedllm.nodes.primary.sequence import CHUNK, Sequence
from sharedllm.wire import Op, Segment, Want

__all__ = ["Batcher", "Step"]

_ACTIVE = 64  # requests that are computed side by side


@dataclasses.dataclass(frozen=True)
class Step:
    """Segments for the workers, the tokens of their rows, and which request, in which life, gets each row.

    ``begun`` are the requests that have their slot since this step.
    """

    segments: tuple[Segment, ...]
    tokens: tuple[int, ...]
    readers: tuple[tuple[Sequence, int], ...]
    begun: tuple[Sequence, ...] = ()

    @property
    def bulk_rows(self) -> int:
        """Rows of the one longer piece (0: only single tokens)."""
        return max((s.rows for s in self.segments if s.rows > 1), default=0)


class Batcher:
    """Waiting, active and kept. ``capacity`` is what the smallest worker of the pipeline holds."""

    def __init__(self) -> None:
        self.capacity = 0
        self.waiting: deque[Sequence] = deque()
        self.active: list[Sequence] = []
        self.prefix_hits = 0
        self._kept: OrderedDict[tuple[int, ...], int] = OrderedDict()
        self._ops: list[Segment] = []
        self._begun: list[Sequence] = []
        self._next_slot = 0
        self._turn = 0

    @property
    def used(self) -> int:
        """Positions that active requests and kept prompts take."""
        return sum(s.held for s in self.active) + sum(map(len, self._kept))

    def opened(self, capacity: int) -> None:
        """A pipeline with empty caches stands ready: replay what was active, in its old order, first."""
        self.capacity = capacity // CHUNK * CHUNK  # workers take memory by chunks
        self.waiting.extendleft(reversed(self.active))
        for sequence in self.waiting:
            sequence.restart()
        self.active, self._ops, self._begun = [], [], []
        self._kept.clear()

    def end(self, sequence: Sequence) -> None:
        """Let go of a request that is finished or cancelled; whole chunks of its prompt stay for others."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence not in self.active:
            return
        self.active.remove(sequence)
        kept = sequence.prompt_length // CHUNK * CHUNK
        prefix = tuple(sequence.tokens[:kept])
        if prefix in self._kept:
            self._kept.move_to_end(prefix)
        elif 0 < kept <= sequence.fed and self.used + kept + sequence.held <= self.capacity:
            self._kept[prefix] = self._fork(sequence.slot, kept)
        self._free(sequence.slot)
        sequence.restart()

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
        return dataclasses.replace(_composed(ops, chosen), begun=tuple(begun))

    def _admit(self) -> None:
        """Take requests off the queue while there is room for their prompts."""
        while self.waiting and len(self.active) < _ACTIVE:
            sequence = self.waiting[0]
            if any(self._ahead(other, sequence) for other in self.active):
                return  # what it shares with another is being computed; it waits to copy it
            if len(sequence.tokens) > self.capacity:
                self.waiting.popleft().fail(BadPrompt(self._too_long(len(sequence.tokens))))
                continue
            needed = _room(min(len(sequence.tokens) + 1, sequence.context))
            held = sum(_room(s.fed + s.pending + 1) for s in self.active)
            if self.active and held + needed > self.capacity:
                return
            self.waiting.popleft()
            self.active.append(sequence)
            self._begin(sequence)

    def _ahead(self, other: Sequence, sequence: Sequence) -> bool:
        """Whether ``other`` is still computing chunks that ``sequence`` begins with, too."""
        shared = _shared(other.tokens[: other.prompt_length], sequence)
        return other.in_prompt and shared > other.fed - other.fed % CHUNK

    def _begin(self, sequence: Sequence) -> None:
        """Give a request a slot: a fork of the longest prompt that begins alike, or an empty one."""
        sources = [(_shared(list(prefix), sequence), slot) for prefix, slot in self._kept.items()]
        sources += [
            (min(_shared(s.tokens[: s.prompt_length], sequence), s.fed // CHUNK * CHUNK), s.slot)
            for s in self.active
            if s is not sequence and s.slot is not None
        ]
        shared, source = max(sources, key=lambda found: found[0], default=(0, 0))
        if shared and self.used + shared <= self.capacity:
            self.prefix_hits += 1
            sequence.slot = self._fork(source, shared)
        else:
            shared, sequence.slot = 0, self._new_slot()
        for prefix, slot in list(self._kept.items()):
            if shared and slot == source:
                self._kept.move_to_end(prefix)
        sequence.fed = sequence.held = shared
        sequence.most = min(sequence.context, self.capacity)
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
            youngest = max(self.active, key=lambda s: s.number)
            self._free(youngest.slot)
            self.active.remove(youngest)
            youngest.restart()
            self.waiting.appendleft(youngest)
            if youngest is sequence:
                return False
        sequence.held = needed
        return True

    def _too_long(self, tokens: int) -> str:
        return (
            f"The present pipeline holds {self.capacity:,} tokens at a time, but this prompt and its answer "
            f"so far have {tokens:,}. Shorten the prompt, or let more machines join."
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


def _composed(ops: list[Segment], chosen: list[Sequence]) -> Step:
    """Write the step down, and note for each request what is on its way."""
    segments, tokens = list(ops), list[int]()
    readers: list[tuple[Sequence, int]] = []
    for sequence in chosen:
        rows, op = sequence.next_rows(), Op.CHUNK if sequence.in_prompt else Op.ROWS
        assert sequence.slot is not None
        tokens += sequence.tokens[sequence.fed : sequence.fed + rows]
        ends = sequence.fed + rows == len(sequence.tokens)
        want = (Want.TRACE if sequence.trace else Want.LAST) if ends else Want.NONE
        segments.append(Segment(op, sequence.slot, sequence.fed, rows, want))
        sequence.fed += rows
        readers += [(sequence, sequence.life)] if ends else []
    return Step(tuple(segments), tuple(tokens), tuple(readers))


def _room(positions: int) -> int:
    """Positions for which a worker takes memory."""
    return -(-positions // CHUNK) * CHUNK


def _shared(tokens: list[int], sequence: Sequence) -> int:
    """Whole chunks of its prompt that ``sequence`` shares with the beginning of ``tokens``, in positions.

    At least one token of it is left to compute.
    """
    most = min(len(tokens), sequence.prompt_length, len(sequence.tokens) - 1) // CHUNK
    for chunk in range(most):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        if tokens[part] != sequence.tokens[part]:
            return chunk * CHUNK
    return most * CHUNK
