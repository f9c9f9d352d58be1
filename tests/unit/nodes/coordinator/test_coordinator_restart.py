"""A coordinator that is killed and started again on the same state has lost nothing."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharedllm.nodes.coordinator import CoordinatorClient, CoordinatorSettings, create_token, revoke
from sharedllm.nodes.coordinator import serve as serve_coordinator
from sharedllm.nodes.coordinator.schemas import NodeReport, PipelineRequest
from sharedllm.nodes.coordinator.server import PortTaken
from sharedllm.nodes.errors import CoordinatorAway, JoinRefused, NotAdmitted
from sharedllm.nodes.identity import client_context, join, read_peer

Report = Callable[..., NodeReport]
Wish = Callable[..., PipelineRequest]
Serve = Callable[..., Any]


def three(served: Any) -> list[Any]:
    nodes = (("primary", "desk"), ("worker", "attic"), ("worker", "lost"))
    return [served.client(role, name) for role, name in nodes]


@pytest.mark.slow
def test_after_a_kill_nothing_is_lost(serve: Serve, report: Report, wish: Wish, tmp_path: Path) -> None:
    served = serve()
    used, unused = create_token(served.state), create_token(served.state)
    join(served.url, used, "worker", tmp_path / "first", "first")
    desk, attic, lost = three(served)
    desk.heartbeat(report("desk", role="primary").model_dump())
    for node, name in ((attic, "attic"), (lost, "lost")):
        node.heartbeat(report(name).model_dump())
    revoke(served.state, "lost")
    first = desk.open_pipeline(wish().model_dump())
    desk.report(first["pipeline"], {"kind": "ok", "speeds": {attic.identity.id: 0.5}, "tokens": 3})
    assert served.end(kill=True) == -signal.SIGKILL

    served.start()
    desk, attic, lost = three(served)
    told = desk.status()
    states = {node["name"]: node["state"] for node in told["nodes"]}
    assert states == {"desk": "up", "attic": "up", "first": "joined"}
    assert [(p["id"], p["tokens"]) for p in told["pipelines"]] == [(first["pipeline"], 3)]
    assert told["revoked"] == [lost.identity.id]
    with pytest.raises(NotAdmitted, match="was revoked"):
        lost.heartbeat(report("lost").model_dump())
    with pytest.raises(JoinRefused, match="used already"):
        join(served.url, used, "worker", tmp_path / "second", "second")
    join(served.url, unused, "worker", tmp_path / "third", "third")
    again = desk.open_pipeline(wish(replaces=first["pipeline"]).model_dump())
    assert again["epoch"] > first["epoch"]
    assert again["token_s"] == pytest.approx(10 * 0.5, abs=0.1)


def test_a_terminated_coordinator_ends_cleanly_and_soon(serve: Serve, report: Report) -> None:
    served = serve()
    served.client("worker", "attic").heartbeat(report("attic").model_dump())
    assert served.end() == 0


def test_while_it_is_away_the_client_says_so(served: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = CoordinatorClient(served.identity("worker", "attic"), f"https://127.0.0.1:{port}")
    with pytest.raises(CoordinatorAway, match="can't be reached"):
        client.status(deadline_s=0.3)
    client.close()


@pytest.mark.slow
def test_strangers_see_the_public_certificate_and_nodes_the_federations(
    serve: Serve, report: Report, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "public.crt", tmp_path / "public.key"
    command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    served = serve(tls_cert=certificate, tls_key=key)
    served.client("worker", "attic").heartbeat(report("attic").model_dump())
    join(served.url, create_token(served.state), "worker", tmp_path / "joined", "joined")
    port = int(served.url.rpartition(":")[2])
    shown = ssl.get_server_certificate(("localhost", port), ca_certs=str(certificate), timeout=10)
    assert shown.strip() == certificate.read_text().strip()


@pytest.mark.slow
def test_a_relay_in_the_same_process_is_told_of_and_answers_members(serve: Serve, report: Report) -> None:
    served = serve(relay_port=0)
    attic = served.client("worker", "attic")
    relay = attic.heartbeat(report("attic").model_dump())["relay"]
    assert (relay["kind"], relay["host"]) == ("relay", "127.0.0.1")
    with (
        socket.create_connection((relay["host"], relay["port"]), timeout=10) as plain,
        attic.identity.wrap_socket(client_context(attic.identity), plain) as tls,
    ):
        tls.do_handshake()
        assert read_peer(tls.getpeercert(True)).id == relay["relay"]
        asked = json.dumps({"do": "call", "node": "0" * 32}).encode()
        tls.sendall(len(asked).to_bytes(4, "big") + asked)
        assert b"is not registered" in tls.recv(1_024)


def test_a_taken_port_is_refused_with_a_sentence(served: Any, tmp_path: Path) -> None:
    port = int(served.url.rpartition(":")[2])
    with pytest.raises(PortTaken, match=f"can't listen on port {port}"):
        serve_coordinator(CoordinatorSettings(tmp_path / "state", host="127.0.0.1", port=port))


def test_a_worker_does_not_load_the_servers_libraries() -> None:
    script = "import sys, sharedllm.nodes.coordinator; print('|'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "fastapi", "uvicorn", "sqlalchemy", "pydantic"} & set(done.stdout.strip().split("|"))
