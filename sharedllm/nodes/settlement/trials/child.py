"""One node as a process: it keeps its account in a file and speaks in datagrams, all through a relay; see
``processes``.
"""

from __future__ import annotations

import hashlib
import json
import select
import socket
import sys
import time
from pathlib import Path

from sharedllm.nodes.settlement.account import Account
from sharedllm.nodes.settlement.errors import CreditSpent, StatementRefused
from sharedllm.nodes.settlement.journal import Journal, Memory
from sharedllm.nodes.settlement.transfers import Acknowledgement, Claim
from sharedllm.nodes.settlement.trials.datagrams import (
    ACKNOWLEDGED,
    CLAIMED,
    DATAGRAM_BYTES,
    DONE,
    RELAY,
    carried,
    claim_with,
    content,
)
from sharedllm.nodes.settlement.trials.parties import party

__all__ = ["main"]

_TURN_S, _RESEND_S, _STATUS_S = 0.005, 0.2, 0.2
_LIE_BYTES = 500


class _Node:
    def __init__(self, number: int, nodes: int, transfers: int, seed: int, journal: str, lies: bool) -> None:
        signers = [party(seed, n) for n in range(nodes)]
        self.number, self._transfers, self._lies = number, transfers, lies
        self._others = [n for n in range(nodes) if n != number]
        self._ids = [one.id for one in signers]
        self.account = Account(signers[number], Journal(Path(journal)) if journal else Memory())
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.relay = ("127.0.0.1", 0)
        self._sent_s: dict[int, float] = {}
        self._told_s = 0.0

    def turn(self) -> None:
        """Give one more transfer to everybody, and send again what was not acknowledged for a while."""
        now_s = time.monotonic()
        for other in self._others:
            self._give(other)
            waiting = self.account.waiting(self._ids[other])
            if waiting and now_s - self._sent_s.get(other, 0) > _RESEND_S:
                for claim in waiting[:8]:
                    self._send_claim(other, claim)
        if now_s - self._told_s > _STATUS_S:
            self._told_s = now_s
            self._send(RELAY, DONE, bytes([self._done()]))

    def hear(self, datagram: bytes) -> None:
        """Take a claim with its bytes, or an acknowledgement; what is refused gets no answer."""
        sender, kind, payload = datagram[1], datagram[2], datagram[3:]
        try:
            if kind == ACKNOWLEDGED:
                self.account.confirm(Acknowledgement.from_bytes(payload))
                return
            statement, came = carried(payload)
            claim = Claim.from_bytes(statement)
            if hashlib.sha256(came).hexdigest() != claim.content:
                return
            answer = self.account.take(claim, len(came))
        except StatementRefused:
            return
        if answer:
            self._send(sender, ACKNOWLEDGED, answer.to_bytes())

    def _give(self, other: int) -> None:
        book = self.account.given.get(self._ids[other])
        number = book.number + 1 if book else 1
        if number > self._transfers:
            return
        body = content(self.number, other, number)
        more_bytes = _LIE_BYTES if self._lies and number % 5 == 0 else 0
        try:
            claim = self.account.give(
                self._ids[other], len(body) + more_bytes, hashlib.sha256(body).hexdigest()
            )
        except CreditSpent:
            return
        self._send_claim(other, claim)

    def _send_claim(self, other: int, claim: Claim) -> None:
        self._sent_s[other] = time.monotonic()
        statement = claim.to_bytes()
        body = content(self.number, other, claim.number)
        self._send(other, CLAIMED, claim_with(statement, body))

    def _send(self, receiver: int, kind: int, payload: bytes) -> None:
        self.socket.sendto(bytes([receiver, self.number, kind]) + payload, self.relay)

    def _done(self) -> bool:
        books = [self.account.given.get(self._ids[other]) for other in self._others]
        return all(book is not None and book.settled_number == self._transfers for book in books)


def main() -> None:
    """Begin with the line that is read, say the port, and go on until the input ends."""
    begin = json.loads(sys.stdin.readline())
    relay = begin.pop("relay")
    node = _Node(**begin)
    node.relay = ("127.0.0.1", relay)
    print(node.socket.getsockname()[1], flush=True)
    while True:
        ready, _, _ = select.select([node.socket, sys.stdin], [], [], _TURN_S)
        if sys.stdin in ready:
            return
        if node.socket in ready:
            node.hear(node.socket.recv(DATAGRAM_BYTES))
        node.turn()


if __name__ == "__main__":
    main()
