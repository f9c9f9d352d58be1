"""The audit: what was served goes to the log from a thread of its own, and no token waits for it.

In the path of a token, ``Tape.token`` keeps a few numbers as tensors: none is read, no lock is taken, no
thread is woken. The auditor's thread collects once a second, and when an answer ends; it makes the ledger's
lines of all tokens at once, appends them, syncs once, and only then is a receipt given out.

**Back-pressure**: a tape holds at most 1,024 tokens that are not yet in the log. There are places for 128
answers that go on, and for as many that are over and wait for the disk. Where the disk is slower than that,
or full, all places are taken, or the numbers of an answer do not add up, serving goes on and that answer is
*unaudited*: nobody is refused or waits, it has no receipt, it is counted in
``sharedllm_answers_unaudited_total``, and ``sentence`` says why. What has a place keeps it, and what the log
holds already stays as it is.

*Covered*: a full, slow or broken disk; SIGKILL in mid-answer (the log then holds what was collected, and no
end); an answer that is never ended (see ``tape``), also by ``close``; an error of our own while collecting.
*Not covered*: up to a second of tokens when the process is killed; weights that the caller changes after
``token``. Bet b017.
"""

from __future__ import annotations

import collections
import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sharedllm.attribution import billionths, rows
from sharedllm.attribution.log import Log
from sharedllm.attribution.receipts import Chain, Head, answers, issue, log_name, prompt_hash
from sharedllm.errors import SharedLLMError, WriteFailed
from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.operations import metrics
from sharedllm.nodes.primary.audit.tape import AuditHead, Tape, exact

__all__ = ["Auditor"]

_COLLECT_S = 1.0
_PUBLISH_S = 60.0
_PLACES = 128
_RECEIPTS = 4096
_REMEMBERED = 1024  # entries of the log whose answers still have receipts after a restart
_log = logging.getLogger(__name__)


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
        self._places = threading.Lock()  # never held while the disk is asked
        recent = range(max(0, self._log.size - _REMEMBERED), self._log.size)
        self._finished = collections.OrderedDict(answers((i, self._log.entry(i)) for i in recent))
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._stopping = False
        self._published_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def begin(self, served: AuditHead) -> Tape:
        """Begin to note an answer, whose ``Tape.end`` must follow; never fails, never waits for the disk."""
        with self._places:
            over = sum(tape.finish_reason is not None for tape in self._open)
            lost = ""
            if len(self._open) - over >= _PLACES:
                lost = f"More than {_PLACES} answers go on at a time."
            elif over >= _PLACES:
                lost = f"The disk is slow, and {_PLACES} answers wait for it."
            elif self._stopping:
                lost = "The node was being shut down."
            tape = Tape(served, self._wake.set, lost)
            if lost:
                self._count(lost)
            else:
                self._open.append(tape)
        self._wake.set()
        return tape

    def log(self) -> dict[str, Any]:
        """What there is to know of the log without asking for an entry; never waits for the disk.

        ``key`` verifies its checkpoints and receipts, ``size`` and ``checkpoint`` are the latest signed ones.
        """
        note = self._log.note.decode()
        return {
            "key": self.log_key,
            "node_key": self._key.public_bytes.hex(),
            "size": int(note.split("\n")[1]),
            "checkpoint": note,
            "unaudited": self.unaudited,
            "sentence": self.sentence,
        }

    def receipt(self, request_id: str, wait_s: float) -> bytes | None:
        """The receipt of an answer that is over, if it is audited and in the log within ``wait_s``; blocks.

        None at once while the answer goes on.
        """
        until_s = time.monotonic() + wait_s
        with self._changed:
            while request_id not in self._finished:
                left_s = until_s - time.monotonic()
                if left_s <= 0 or not self._is_over(request_id):
                    return None
                self._changed.wait(left_s)
            positions = self._finished[request_id]
            if not positions:
                return None
            records = [self._log.entry(position) for position in positions]
            return issue(records, self._log.prove(positions[-1]), self._salt(request_id), self._key.private)

    def _is_over(self, request_id: str) -> bool:
        """Whether an answer has ended and is yet to be written."""
        with self._places:
            ended = [tape.head.request_id for tape in self._open if tape.finish_reason is not None]
        return request_id in ended

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
            with self._places:
                tapes = list(self._open)
            try:
                self._collect(tapes, stopping)
            except Exception:
                _log.exception("the audit stumbled")
                for tape in tapes:
                    tape.lost = tape.lost or "The audit stumbled; the node's log says more."
                self._finish([tape for tape in tapes if tape.finish_reason is not None or stopping])
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
            a_NT, logw_NT, joint_T = exact(items)
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
        with self._changed, self._places:
            for tape in ended:
                if tape not in self._open:
                    continue
                self._open.remove(tape)
                self._finished[tape.head.request_id] = [] if tape.lost else tape.positions
                if tape.lost:
                    self._count(tape.lost)
                else:
                    metrics.answers_audited.inc()
            while len(self._finished) > _RECEIPTS:
                self._finished.popitem(last=False)
            self._changed.notify_all()

    def _count(self, lost: str) -> None:
        """One more answer is not audited; the caller holds ``_places``."""
        metrics.answers_unaudited.inc()
        self.unaudited += 1
        self.sentence = f"{self.unaudited:,} answers are not audited, the last because: {lost}"
        _log.warning("an answer is not audited: %s", lost)

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
