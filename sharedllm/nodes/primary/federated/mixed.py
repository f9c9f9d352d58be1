"""One request that several specialists answer together: each says what it thinks of every next token, the
mixture of them chooses, and the chosen token goes to all.

The weights are fixed-share Bayes (``combiner.FixedShare``): they begin evenly, are carried along the last
tokens of the prompt and then along the answer, so that whoever predicted the text best so far weighs most.

Members may be computed by one pipeline or by several, whose loops run in threads of their own; whichever
member is heard last does the sum, in its loop's thread, and every loop is told through its queue.

*Covered*: the same request gives the same tokens whatever else is computed, in whichever order members
answer, and whatever is lost: a member that is replayed says the same bits for the same position, and what was
heard before is not taken twice. *Not covered*: a member whose pipeline never comes back (the request then
ends with the pipeline's sentence).
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from collections.abc import Sequence as Several
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sharedllm.combiner import Blend, FixedShare, blended
from sharedllm.nodes.primary.sequence import Sequence, Telling

if TYPE_CHECKING:
    from sharedllm.nodes.primary.loop import Loop

__all__ = ["ALPHA", "CARRIED", "RULE", "Member", "Mixed", "Weighed"]

ALPHA = 0.02
"""Share of its weight that a specialist gives to the others after every token: a text is taken to change its
subject about every fifty tokens, which costs ``combiner.fixed_share_price`` where it does not."""

RULE = f"fixed share, alpha {ALPHA}"

CARRIED = 512
"""So many of the prompt's last tokens tell who weighs how much; each costs every member a head."""

Member = tuple["Loop", Sequence]


class Mixed:
    """The members of one request, and what each has said of its next token. Safe for their loops' threads."""

    def __init__(self, telling: Telling, members: Several[Member]) -> None:
        self.telling, self.members = telling, tuple(members)
        self.weights = FixedShare(len(self.members), ALPHA).start()
        self._sequences = [sequence for _, sequence in self.members]
        self._heard: dict[int, Tensor] = {}
        self._length = len(self._sequences[0].tokens)
        self._carried = self._over = False
        self._turn = threading.RLock()  # a reader that has gone cancels from within
        for sequence in self._sequences:
            sequence.mixed = self
            sequence.telling = telling
            sequence.score(CARRIED)

    def submit(self) -> None:
        """Let every loop take its members, all at once."""
        self._each_loop(lambda loop, sequences: loop.submit(*sequences))

    def heard(self, member: Sequence, logits_V: Tensor) -> None:
        """Take what a member thinks of the token behind its present ones; with the last of them, go on."""
        with self._turn:
            if self._over or len(member.tokens) != self._length:
                return  # a replay of what was chosen already
            self._heard[self._sequences.index(member)] = logits_V
            if len(self._heard) < len(self._sequences):
                return
            logits = [self._heard[i] for i in range(len(self._sequences))]
            self._heard = {}
            if not self._carried:
                self.weights.carry(torch.stack([_joined(s.scores) for s in self._sequences]))
                self._carried = True
            self._weighed(blended(logits, self.weights.logw_N))

    def cancel(self) -> None:
        """End it, wherever it is."""
        if self._let_go():
            self.telling.cancel()

    def fail(self, error: Exception) -> None:
        """End with a sentence, once, for all members."""
        if self._let_go():
            self.telling.fail(error)

    def _weighed(self, blend: Blend) -> None:
        """Choose the next token from what all members said, and pass it on."""
        logw_N = self.weights.logw_N
        token = self.telling.choose(blend.m_V)
        a_N = blend.evidence(token)
        self.weights.observe(a_N)
        most = min(sequence.most for sequence in self._sequences)
        self.telling.say(token, blend.m_V, most, (a_N, logw_N))
        if self.telling.finish_reason:
            self._let_go()
        elif not self._over:
            self._length += 1
            self._each_loop(lambda loop, sequences: loop.feed(sequences, token))

    def _let_go(self) -> bool:
        """End every member; False if that was done before."""
        with self._turn:
            if self._over:
                return False
            self._over = True
            self._each_loop(lambda loop, sequences: loop.feed(sequences, None))
            return True

    def _each_loop(self, act: Callable[[Loop, list[Sequence]], None]) -> None:
        for loop in dict.fromkeys(loop for loop, _ in self.members):
            act(loop, [sequence for other, sequence in self.members if other is loop])


class Weighed(Mixed):
    """Members that are asked once, and choose nothing: what each says of the next token, and its weight."""

    def __init__(self, telling: Telling, members: Several[Member]) -> None:
        super().__init__(telling, members)
        self.done: concurrent.futures.Future[tuple[Blend, Tensor]] = concurrent.futures.Future()

    def fail(self, error: Exception) -> None:
        """End with a sentence, which ``done`` raises."""
        if self._let_go():
            self.done.set_exception(error)

    def _weighed(self, blend: Blend) -> None:
        if self._let_go():
            self.done.set_result((blend, self.weights.logw_N))


def _joined(scores: list[Tensor]) -> Tensor:
    return torch.cat(scores) if scores else torch.zeros(0, dtype=torch.float64)
