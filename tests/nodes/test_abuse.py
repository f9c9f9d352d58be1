"""Clients that vanish, and nodes that are revoked, while others are served."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from sharedllm.nodes import coordinator
from sharedllm.nodes.local import Federation
from tests.nodes.harness import PROMPT, Network, within

pytestmark = pytest.mark.slow

_CLIENTS, _AT_ONCE, _GROWTH_BYTES = 1_000, 20, 96 << 20


def test_a_thousand_clients_that_vanish_leave_nothing_and_disturb_nobody(
    network: Network, undisturbed: str
) -> None:
    primary = psutil.Process(network.federation.primary.pid)
    vanish(network.federation.page_url, 100)  # what a process takes once, it takes now
    before = primary.memory_info().rss
    crowd = threading.Thread(target=vanish, args=(network.federation.page_url, _CLIENTS))
    crowd.start()
    texts = [network.tell(patience=20).text for _ in range(3)]
    crowd.join()
    within(60, lambda: network.state()["active"] == network.state()["waiting"] == 0)
    assert texts == [undisturbed] * 3
    assert primary.memory_info().rss - before < _GROWTH_BYTES


def test_a_revoked_worker_is_left_within_a_lease_and_the_sentence_goes_on(
    tmp_path: Path, undisturbed: str
) -> None:
    with Federation(tmp_path, model="toy", workers=2, port=0, coordinator_port=0, threads=1) as federation:
        network = Network(federation)
        network.whole()
        victim = network.serving()[-1]
        told = network.tell(
            lambda: coordinator.revoke(tmp_path / "coordinator", victim.name), max_tokens=2000
        )
        assert told.text.startswith(undisturbed)
        within(15, lambda: victim.name not in [worker.name for worker in network.serving()])
        network.client.close()


def vanish(url: str, count: int) -> None:
    """Ask for long answers, and hang up without reading one."""
    where = urlsplit(url)
    body = json.dumps({"model": "toy", "prompt": PROMPT, "max_tokens": 500, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
    request = head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    for _ in range(count // _AT_ONCE):
        together = []
        for _ in range(_AT_ONCE):
            together.append(socket.create_connection((where.hostname or "", where.port or 0)))
            together[-1].sendall(request)
        for connection in together:
            connection.close()
