"""What auditing costs a decoding mixture, in this process: blocks of tokens with and without, in turns.

A *choir* decodes a mixture as a primary does (fixed-share weights, the mixture in fp64, greedy): N rows of
one base, each with gains of its own, which cost what specialists of one base cost. A *block* begins at the
same prompt each time, decodes ``tokens`` that are audited and then ``rest`` that are not, while the log is
written: all that the audit does for a block (extraction, ledger, hashing, append, fsync) should end inside
its time (``Paired.in_time`` counts the blocks for which it did). The *ratio* of neighbouring blocks sets
their difference against the time of the audited tokens alone.

*Covered*: the audit's thread, the interpreter lock, its disk. *Not covered*: a network, workers that compete
for the cores, several answers at a time.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sharedllm.attribution import billionths, rows
from sharedllm.attribution.log import Log
from sharedllm.attribution.receipts import verify
from sharedllm.combiner import FixedShare, blended
from sharedllm.model import Transformer
from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.primary.audit import AuditHead, Auditor
from sharedllm.store import canonical_json

__all__ = ["Block", "Choir", "Paired", "compare", "median_interval", "round_ratio"]

ALPHA = 0.02
_RULE = f"fixed-share {ALPHA}"
_WAIT_S = 30.0


class Noting(Protocol):
    """What a block tells of each token."""

    def token(self, token: int, a_N: Tensor, logw_N: Tensor, joint: Tensor) -> None:
        """Note one token."""

    def end(self, finish_reason: str) -> None:
        """That was all."""


class Audit(Protocol):
    """A way to audit."""

    def begin(self, number: int, choir: Choir) -> Noting:
        """Begin an answer."""


@dataclass(frozen=True)
class Block:
    """A block: how long after the last each of its tokens came (s), and which they were."""

    gaps_s: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """Time of the whole block."""
        return sum(self.gaps_s)


class Choir:
    """N singers of one base: its gains, disturbed by a share ``disturbance`` each in its own way."""

    def __init__(
        self, model: Transformer, singers: int, disturbance: float, prompt: Sequence[int], most: int
    ) -> None:
        self.model, self.prompt, self.singers = model, tuple(prompt), singers
        self.names = tuple(f"singer-{i}" for i in range(singers))
        self.ids = tuple(f"{i:064x}" for i in range(singers))
        gains_GD = torch.stack([gain.detach() for gain in model.gains().values()])
        draw = torch.Generator().manual_seed(0)
        noise_NGD = torch.randn(singers, *gains_GD.shape, generator=draw)
        self._gains_NGD = gains_GD * (1 + disturbance * noise_NGD)
        self._cache = model.cache(singers, len(prompt) + most + 1)
        with torch.inference_mode():
            prompt_NT = torch.tensor([prompt]).expand(singers, -1)
            self._first_NV = model(prompt_NT, self._cache, last_only=True, gains_BGD=self._gains_NGD)[:, -1]

    @torch.inference_mode()
    def block(self, number: int, audit: Audit | None, tokens: int, rest: int) -> Block:
        """Decode a block from the prompt on; ``audit`` notes the first ``tokens`` of it."""
        weights, logits_NV = FixedShare(self.singers, ALPHA), self._first_NV
        said, times_s = [], [time.perf_counter()]
        noting = audit.begin(number, self) if audit is not None else None
        for at in range(tokens + rest):
            logw_N = weights.logw_N
            blend = blended(logits_NV.unbind(), logw_N)
            token = int(blend.m_V.argmax())
            a_N = blend.evidence(token)
            (logw_N + a_N).softmax(0).tolist()  # the shares that a reader is sent with the token
            if noting is not None and at < tokens:
                noting.token(token, a_N, logw_N, blend.m_V[token])
                if at == tokens - 1:
                    noting.end("length")
            weights.observe(a_N)
            row_N1 = torch.full((self.singers, 1), token)
            logits_NV = self.model(row_N1, self._cache, gains_BGD=self._gains_NGD)[:, -1]
            said.append(token)
            times_s.append(time.perf_counter())
        self._cache.rollback(tokens + rest)
        gaps_s = tuple(b - a for a, b in itertools.pairwise(times_s))
        return Block(gaps_s, tuple(said))


class Deferred:
    """The audit as a primary does it, with a log in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.auditor = Auditor(folder / "deferred", NodeKey.load_or_create(folder / "node.key"))

    def begin(self, number: int, choir: Choir) -> Noting:
        """Begin a tape."""
        head = AuditHead(str(number), None, "choir", choir.names, choir.ids, _RULE, choir.prompt)
        return self.auditor.begin(head)

    def logged(self, number: int) -> bool:
        """Whether an answer is in the log by now, and synced."""
        return self.auditor.receipt(str(number), 0.0) is not None

    def proved(self, number: int) -> tuple[int, ...]:
        """The tokens that an answer's verified receipt holds; none if there is no receipt."""
        receipt = self.auditor.receipt(str(number), _WAIT_S)
        if receipt is None:
            return ()
        answer = verify(receipt, log_key=self.auditor.log_key).answer
        return tuple(token.entry.token for token in answer.tokens)


class Naive:
    """The audit nobody should write: every token is extracted, appended and synced before the next."""

    def __init__(self, folder: Path) -> None:
        key = NodeKey.load_or_create(folder / "node.key")
        self._log = Log(folder / "naive", "sharedllm/naive", key.private)

    def begin(self, number: int, choir: Choir) -> Naive:
        """Begin an answer."""
        return self

    def token(self, token: int, a_N: Tensor, logw_N: Tensor, joint: Tensor) -> None:
        """Log a token at once."""
        a_N1, logw_N1 = a_N[:, None], logw_N[:, None]
        row = rows(a_N1, logw_N1, joint[None], torch.tensor([token]))[0]
        self._log.append([canonical_json([*row, billionths(a_N1, logw_N1)[0]])])

    def end(self, finish_reason: str) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Close the log."""
        self._log.close()


Pair = tuple[Block, Block]


@dataclass
class Paired:
    """Blocks of a comparison, of which ``tokens`` each are audited.

    A round of ``deferred`` or ``naive`` is two (plain, audited) pairs, once in that order and once in the
    other, so that a machine which slows down or speeds up steadily does so for both alike.
    """

    tokens: int
    deferred: list[tuple[Pair, Pair]] = field(default_factory=list)
    naive: list[tuple[Pair, Pair]] = field(default_factory=list)
    in_time: int = 0
    """Deferred blocks whose log was synced before they ended."""
    proved: int = 0
    """Audited tokens that a verified receipt holds, the right ones in the right order."""
    audit_cpu_s: float = 0.0

    def ratios(self) -> list[float]:
        """Time per token audited over not audited, per round."""
        return [round_ratio(pairs, self.tokens) for pairs in self.deferred]

    def naive_ratios(self) -> list[float]:
        """The same of the naive audit."""
        return [round_ratio(pairs, self.tokens) for pairs in self.naive]

    def null_ratios(self) -> list[float]:
        """What the same comparison makes of two plain blocks of a round: 1, but for noise."""
        return [second[0].seconds / first[0].seconds for first, second in self.deferred]

    def token_ms(self, arm: int) -> list[float]:
        """How long each audited token took: 0 for plain blocks, 1 for deferred ones."""
        blocks = [pair[arm] for pairs in self.deferred for pair in pairs]
        return [1e3 * gap for block in blocks for gap in block.gaps_s[: self.tokens]]


def compare(
    choir: Choir, folder: Path, *, rounds: int, naive_every: int, tokens: int, rest: int, seed: int
) -> Paired:
    """Compare blocks after a pair that isn't counted; every ``naive_every``-th round is also run naively.

    Threads take turns as in a primary, which shortens the interpreter's switching interval.
    """
    deferred, naive, draw = Deferred(folder), Naive(folder), random.Random(seed)
    paired, numbers, before = Paired(tokens), itertools.count(), sys.getswitchinterval()

    def pair(audit: Deferred | Naive, first: bool) -> Pair:
        blocks = {}
        for audited in (first, not first):
            number = next(numbers)
            blocks[audited] = choir.block(number, audit if audited else None, tokens, rest)
            if audited and audit is deferred:
                paired.in_time += deferred.logged(number)
                paired.proved += tokens * (deferred.proved(number) == blocks[True].tokens[:tokens])
        return blocks[False], blocks[True]

    sys.setswitchinterval(0.0005)
    try:
        pair(deferred, False)
        paired.in_time = paired.proved = 0
        before_s = deferred.auditor.cpu_s
        for number in range(rounds):
            first = draw.random() < 0.5
            paired.deferred.append((pair(deferred, first), pair(deferred, not first)))
            if number % naive_every == 0:
                paired.naive.append((pair(naive, first), pair(naive, not first)))
        paired.audit_cpu_s = deferred.auditor.cpu_s - before_s
    finally:
        sys.setswitchinterval(before)
        deferred.auditor.close()
        naive.close()
    return paired


def round_ratio(pairs: Sequence[Pair], tokens: int) -> float:
    """How much longer an audited token takes: all that blocks were longer falls on their audited tokens."""
    plain_s, audited_s = (sum(pair[arm].seconds for pair in pairs) for arm in (0, 1))
    token_s = plain_s / sum(len(pair[0].gaps_s) for pair in pairs)
    return 1 + (audited_s - plain_s) / (len(pairs) * tokens * token_s)


def median_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """The median, and its 95 % percentile interval over 10,000 resamples (Efron & Tibshirani 1993, §13)."""
    values_R = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(values_R), size=(10_000, len(values_R)))
    low, high = np.quantile(np.median(values_R[drawn], axis=1), [0.025, 0.975])
    return float(np.median(values_R)), float(low), float(high)
