"""One member as a process: it gossips, and does what it reads, a JSON object a line; see ``processes``."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from sharedllm.nodes.gossip.entries import Entry, Kind
from sharedllm.nodes.gossip.leases import Lease
from sharedllm.nodes.gossip.service import Service
from sharedllm.nodes.gossip.view import Contact
from sharedllm.nodes.identity import Identity

__all__ = ["main"]


class _Member:
    def __init__(self, folder: Path, seeds: list[Contact], round_s: float, lease_s: float) -> None:
        self.heard_s: dict[str, float] = {}
        self.refused: set[str] = set()
        self.changed = threading.Condition()
        identity = Identity.load(folder)
        self.service = Service(
            identity,
            lambda host, port: Lease(folder.name, host, port),
            seeds=seeds,
            refuses=lambda node: node in self.refused,
            on_news=self.news,
            round_s=round_s,
            lease_s=lease_s,
        )

    def news(self, entry: Entry) -> None:
        """Note when something was first heard."""
        if entry.kind is Kind.VOTE:
            with self.changed:
                self.heard_s.setdefault(entry.key.decode(), time.monotonic())
                self.changed.notify_all()

    def do(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command."""
        match asked["do"]:
            case "say":
                entry = self.service.say(Kind.VOTE, asked["key"].encode(), b"", asked["life_s"])
                return {"at_s": time.monotonic(), "expires_s": entry.expires_s}
            case "withdraw":
                self.service.withdraw(Kind.VOTE, asked["key"].encode())
                return {}
            case "await":
                with self.changed:
                    known = self.changed.wait_for(lambda: asked["key"] in self.heard_s, asked["timeout_s"])
                return {"at_s": self.heard_s[asked["key"]] if known else None}
            case "refuse":
                self.refused = set(asked["ids"])
                return {}
            case "state":
                votes = [entry.key.decode() for entry in self.service.heard(Kind.VOTE)]
                return {"nodes": sorted(self.service.nodes()), "heard": sorted(votes)}
        raise ValueError(f"{asked['do']} is nothing that a member does")


def main() -> None:
    """Begin with the first line, then do what the others say, until the input ends."""
    begin = json.loads(sys.stdin.readline())
    seeds = [Contact(*seed) for seed in begin["seeds"]]
    member = _Member(Path(begin["folder"]), seeds, begin["round_s"], begin["lease_s"])
    me = member.service.start()
    print(json.dumps({"id": me.id, "host": me.host, "port": me.port}), flush=True)
    for line in sys.stdin:
        print(json.dumps(member.do(json.loads(line))), flush=True)
    member.service.stop()


if __name__ == "__main__":
    main()
