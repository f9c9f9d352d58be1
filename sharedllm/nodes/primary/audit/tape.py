"""One answer on its way to the audit log: what its ring's thread notes, until the auditor's thread takes it.

A tape is ended by whoever began it, whatever happens to the answer: it ended, failed, was cancelled, or its
client has gone. *Covered*: an owner that forgets it all the same: after an hour in which nothing was noted
it counts as unaudited, and gives its place to others.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.attribution.receipts import Chain
from sharedllm.errors import BadLedger

__all__ = ["AuditHead", "Item", "Tape", "exact"]

_TAPE_TOKENS = 1024
_SILENT_S = 3600.0
_JOINT_MISSES_BY = 1e-4  # what fp32 may do to a mixture's log-probability, per nat and one

Item = tuple[int, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class AuditHead:
    """Who asked what: names and manifest ids of the specialists in the order of ``a_N``, and the prompt."""

    request_id: str
    client_key: str | None
    model: str
    specialists: tuple[str, ...]
    ids: tuple[str, ...]
    rule: str
    prompt: tuple[int, ...]


class Tape:
    """One answer on its way to the log; written by one thread, the ring's."""

    def __init__(self, head: AuditHead, wake: Callable[[], None], lost: str = "") -> None:
        self.head = head
        self.lost = lost
        """Why this answer is not audited, or ``""``."""
        self.positions: list[int] = []
        self.chain: Chain | None = None
        self.finish_reason: str | None = None
        self._items: collections.deque[Item] = collections.deque()
        self._wake, self._heard_s = wake, time.monotonic()

    def token(self, token: int, a_N: Tensor, logw_N: Tensor, joint: Tensor) -> None:
        """Note a token, each specialist's log-probability of it and log-weight before it, and the mixture's.

        Nothing is read now. ``a_N`` and ``joint`` are copied where they are, for as parts of all
        log-probabilities they would keep those alive; ``logw_N`` must not change later. Weights and joint may
        be fp32: then weights are normalised anew in fp64, and the joint is made again from them.
        """
        if self.lost:
            return
        if len(self._items) < _TAPE_TOKENS:
            self._items.append((token, a_N.clone(), logw_N, joint.clone()))
        else:
            self.lost = "The disk is too slow for the audit log, so this answer is not in it as a whole."

    def end(self, finish_reason: str) -> None:
        """The answer is over; its receipt comes as soon as the log is written."""
        self.finish_reason = self.finish_reason or finish_reason
        self._wake()

    def take(self) -> list[Item]:
        """Hand over what was noted since the last time."""
        items = [self._items.popleft() for _ in range(len(self._items))]
        if items:
            self._heard_s = time.monotonic()
        elif self.finish_reason is None and time.monotonic() - self._heard_s > _SILENT_S:
            self.lost = self.lost or "Nothing was noted of it for an hour."
            self.finish_reason = "forgotten"
        return items


def exact(items: Sequence[Item]) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens' numbers in fp64: ``a_NT``, ``logw_NT``, ``joint_T``. Raises ``BadLedger`` where they
    differ from what was served by more than fp32 explains.
    """
    a_NT = torch.stack([item[1] for item in items], 1).to("cpu", torch.float64)
    logw_NT = torch.stack([item[2] for item in items], 1)
    served_T = torch.stack([item[3] for item in items]).reshape(len(items))
    if logw_NT.dtype != torch.float64 or served_T.dtype != torch.float64:
        logw_NT = logw_NT.to("cpu", torch.float64).log_softmax(0)
        joint_T, served_T = (a_NT + logw_NT).logsumexp(0), served_T.to("cpu", torch.float64)
        if bool(((joint_T - served_T).abs() > _JOINT_MISSES_BY * (1 + served_T.abs())).any()):
            raise BadLedger("The mixture's log-probabilities are not those of its specialists and weights.")
        return a_NT, logw_NT, joint_T
    return a_NT, logw_NT.cpu(), served_T.cpu()
