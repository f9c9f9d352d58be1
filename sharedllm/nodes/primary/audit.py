"""The audit: what was served goes to the log from a thread of its own, and no token waits for it.

In the path of a token, ``Tape.token`` keeps a few numbers as tensors: none is read, no lock is taken, no
thread is woken. The auditor's thread collects once a second, and when an answer ends; it makes the ledger's
lines of all tokens at once, appends them, syncs once, and only then is a receipt given out.

**Back-pressure**: a tape holds at most 1,024 tokens that are not yet in the log, and 128 tapes are open at a
time. Where the disk is slower than that, or full, or the numbers of an answer do not add up, serving goes on
and that answer is *unaudited*: it has no receipt, it is counted in ``sharedllm_answers_unaudited_total``, and
``sentence`` says why. What the log holds already stays as it is.

*Covered*: a full, slow or broken disk; SIGKILL in mid-answer (the log then holds what was collected, and no
end); an answer that is never ended, by ``close``. *Not covered*: up to a second of tokens when the process
is killed; weights that the caller changes after ``token``. Bet b017.
"""

from __future__ import annotations

import collections
import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sharedllm.attribution import billionths, rows
from sharedllm.attribution.log import Log
from sharedllm.attribution.receipts import Chain, Head, answers, issue, log_name, prompt_hash
from sharedllm.errors import BadLedger, SharedLLMError, WriteFailed
from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.operations import metrics

__all__ = ["AuditHead", "Auditor", "Tape"]

_COLLECT_S = 1.0
_PUBLISH_S = 60.0
_TAPE_TOKENS = 1024
_OPEN_TAPES = 128
_RECEIPTS = 4096
_REMEMBERED = 1024  # entries of the log whose answers still have receipts after a restart
_JOINT_MISSES_BY = 1e-4  # what fp32 may do to a mixture's log-probability, per nat and one
_log = logging.getLogger(__name__)

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

    def __init__(self, head: AuditHead, auditor: Auditor, lost: str) -> None:
        self.head = head
        self.lost = lost
        """Why this answer is not audited, or ``""``."""
        self.positions: list[int] = []
        self.chain: Chain | None = None
        self.finish_reason: str | None = None
        self._items: collections.deque[Item] = collections.deque()
        self._auditor = auditor

    def token(self, token: int, a_N: Tensor, logw_N: Tensor, joint: Tensor) -> None:
        """Note a token, each specialist's log-probability of it and log-weight before it, and the mixture's.

        Nothing is read now. ``a_N`` and ``joint`` are copied where they are, for as parts of all
        log-probabilities they would keep those alive; ``logw_N`` must not change later. Weights and joint may
        be fp32: then weights are normalised anew in fp64, and the joint is made again from them.
        """
        if len(self._items) < _TAPE_TOKENS:
            self._items.append((token, a_N.clone(), logw_N, joint.clone()))
        else:
            self.lost = "The disk is too slow for the audit log, so this answer is not in it as a whole."

    def end(self, finish_reason: str) -> None:
        """The answer is over; its receipt comes as soon as the log is written."""
        self.finish_reason = self.finish_reason or finish_reason
        self._auditor.wake()

    def take(self) -> list[Item]:
        """Hand over what was noted since the last time."""
        return [self._items.popleft() for _ in range(len(self._items))]


class Auditor:
    """Keeps the audit log in ``folder``, signed by the node's key; see the module for what it promises.

    Raises ``BadLog`` for a log that was tampered with or is in use, ``WriteFailed`` where the disk refuses.
    """

    def __init__(self, folder: Path, key: NodeKey, *, collect_s: float = _COLLECT_S) -> None:
        self._key, self._collect_s = key, collect_s
        self._log = Log(folder, log_name(key.public_bytes), key.private)
        self.log_key = str(self._log.key)
        self.sentence = "Every answer is audited."
        self.unaudited = 0
        self.cpu_s = 0.0
        """Processor time that the audit's own thread took so far."""
        self._open: list[Tape] = []
        recent = range(max(0, self._log.size - _REMEMBERED), self._log.size)
        self._finished = collections.OrderedDict(answers((i, self._log.entry(i)) for i in recent))
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._stopping = False
        self._published_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def begin(self, served: AuditHead) -> Tape:
        """Begin to note an answer; never fails and never waits for the disk."""
        lost = ""
        if len(self._open) >= _OPEN_TAPES or self._stopping:
            lost = f"More than {_OPEN_TAPES} answers at a time, or a shutdown: this one is not audited."
        tape = Tape(served, self, lost)
        self._open.append(tape)
        self._wake.set()
        return tape

    def wake(self) -> None:
        """Collect now rather than within a second."""
        self._wake.set()

    def receipt(self, request_id: str, wait_s: float) -> bytes | None:
        """The receipt of an answer, if it is audited and its end in the log within ``wait_s``; blocks."""
        until_s = time.monotonic() + wait_s
        with self._changed:
            while request_id not in self._finished:
                left_s = until_s - time.monotonic()
                if left_s <= 0 or not any(tape.head.request_id == request_id for tape in self._open):
                    return None
                self._changed.wait(left_s)
            positions = self._finished[request_id]
            if not positions:
                return None
            records = [self._log.entry(position) for position in positions]
            return issue(records, self._log.prove(positions[-1]), self._salt(request_id), self._key.private)

    def close(self) -> None:
        """Write what was noted, with an end to every answer that has none, and close the log."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._log.close()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._collect_s if self._open else self._unpublished_s())
            self._wake.clear()
            stopping = self._stopping
            self._collect(list(self._open), stopping)
            self.cpu_s = time.thread_time()
            if stopping:
                return

    def _collect(self, tapes: Sequence[Tape], stopping: bool) -> None:
        """Write the records of all tapes in one batch."""
        batch, whose, ended = [], [], []
        for tape in tapes:
            over = tape.finish_reason is not None or stopping  # read before the last tokens are taken
            try:
                records = self._records(tape, over)
            except SharedLLMError as error:
                tape.lost = tape.lost or str(error)
                records = []
            except Exception:  # whatever is wrong with one answer's numbers must not touch another
                _log.exception("an answer can't be audited")
                tape.lost = tape.lost or "its numbers could not be read; the node's log says more."
                records = []
            batch += records
            whose += [tape] * len(records)
            if over:
                ended.append(tape)
        try:
            with self._changed:
                first = self._log.append(batch) if batch else 0
                for position, tape in enumerate(whose, first):
                    tape.positions.append(position)
        except SharedLLMError as error:
            for tape in set(whose):
                tape.lost = tape.lost or str(error)
        self._finish(ended)
        self._publish()

    def _records(self, tape: Tape, over: bool) -> list[bytes]:
        """Extract what was noted of an answer; nothing once it is lost."""
        items = tape.take()
        if tape.lost:
            return []
        records = []
        if tape.chain is None:
            tape.chain = Chain(self._head(tape.head))
            records.append(tape.chain.head)
        if items:
            tokens = torch.tensor([item[0] for item in items])
            a_NT, logw_NT, joint_T = _exact(items)
            records += tape.chain.pieces(rows(a_NT, logw_NT, joint_T, tokens), billionths(a_NT, logw_NT))
        if over:
            records.append(tape.chain.end(tape.finish_reason or "interrupted"))
        return records

    def _head(self, head: AuditHead) -> Head:
        salt = self._salt(head.request_id)
        return Head(
            request_id=head.request_id,
            client_key=head.client_key,
            model=head.model,
            specialists=head.specialists,
            ids=head.ids,
            rule=head.rule,
            prompt_sha256=prompt_hash(salt, head.prompt),
            prompt_tokens=len(head.prompt),
            salt_sha256=hashlib.sha256(salt).hexdigest(),
            began_unix_s=int(time.time()),
        )

    def _salt(self, request_id: str) -> bytes:
        """A secret for each request that the node need not keep: Ed25519 signs the same text the same way."""
        return hashlib.sha256(self._key.sign(b"sharedllm salt\n" + request_id.encode())).digest()[:16]

    def _finish(self, ended: Sequence[Tape]) -> None:
        with self._changed:
            for tape in ended:
                self._open.remove(tape)
                self._finished[tape.head.request_id] = [] if tape.lost else tape.positions
                (metrics.answers_unaudited if tape.lost else metrics.answers_audited).inc()
                if tape.lost:
                    self.unaudited += 1
                    self.sentence = (
                        f"{self.unaudited:,} answers are not audited, the last because: {tape.lost}"
                    )
                    _log.warning("an answer is not audited: %s", tape.lost)
            while len(self._finished) > _RECEIPTS:
                self._finished.popitem(last=False)
            self._changed.notify_all()

    def _unpublished_s(self) -> float | None:
        """How long the folder's own checkpoint may stay behind, if it is."""
        return None if self._log.published else _PUBLISH_S

    def _publish(self) -> None:
        """Write the folder's own checkpoint once a minute."""
        if time.monotonic() - self._published_s < _PUBLISH_S:
            return
        self._published_s = time.monotonic()
        try:
            self._log.publish()
        except WriteFailed as error:
            _log.warning("the audit log's checkpoint: %s", error)


def _exact(items: Sequence[Item]) -> tuple[Tensor, Tensor, Tensor]:
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
