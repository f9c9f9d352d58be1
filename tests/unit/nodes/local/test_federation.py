"""One object starts a coordinator and, here, stand-ins for its nodes: what they are given, how they end."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sharedllm.nodes.identity import parse_token
from sharedllm.nodes.local import AlreadyUp, Federation, ProcessFailed, federation, read_note
from sharedllm.nodes.operations import PortTaken

STUB = Path(__file__).with_name("stub_node.py")
real_program = federation._program


def program(command: str) -> list[str]:
    return [sys.executable, str(STUB)] if command == "node" else real_program(command)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Iterator[Federation]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federation, "_program", program)
        patch.setenv("SHAREDLLM_JOIN_TOKEN", "somebody's")
        state = tmp_path_factory.mktemp("state")
        with Federation(state, workers=2, port=0, coordinator_port=0, threads=3, say=said.append) as running:
            yield running


@pytest.fixture
def without_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stand-ins be everything; their tokens are good for nothing."""
    monkeypatch.setattr(federation, "_program", lambda name: [sys.executable, str(STUB)])
    monkeypatch.setattr(Federation, "_enrol_operator", lambda self: None)
    monkeypatch.setattr(Federation, "token", lambda self: "SL1-none")


def options(running: Federation, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((running.state / name / "options").read_text())
    return found


def test_each_process_is_named_when_it_is_ready(up: Federation, said: list[str]) -> None:
    assert said[0].startswith("coordinator is ready at https://127.0.0.1:")
    assert sorted(line.split()[0] for line in said[1:4]) == ["primary", "worker-1", "worker-2"]


def test_each_node_gets_a_token_of_its_own_by_stdin(up: Federation) -> None:
    tokens = [(up.state / name / "token").read_text() for name in ("worker-1", "worker-2", "primary")]
    assert len({parse_token(token).id for token in tokens}) == 3


def test_no_argument_and_no_variable_of_a_process_holds_a_token(up: Federation) -> None:
    for process in up.processes:
        running = psutil.Process(process.pid)
        shown = [*running.cmdline(), *running.environ().keys(), *running.environ().values()]
        assert not [text for text in shown if "SL1-" in text or "JOIN_TOKEN" in text]


def test_workers_are_told_their_part_of_the_memory_and_their_threads(up: Federation) -> None:
    told = options(up, "worker-1")
    assert 0 < int(told["--memory"]) < psutil.virtual_memory().total / 2
    assert told["--threads"] == "3"


def test_the_model_is_spread_over_all_workers(up: Federation) -> None:
    assert options(up, "primary")["--spread"] == "2"


def test_without_lan_everything_listens_on_loopback(up: Federation) -> None:
    assert {options(up, name)["--host"] for name in ("worker-1", "primary")} == {"127.0.0.1"}
    listening = psutil.Process(up.coordinator.pid).net_connections("tcp")
    assert {connection.laddr.ip for connection in listening if connection.status == "LISTEN"} == {"127.0.0.1"}


def test_addresses_are_those_that_the_processes_serve(up: Federation) -> None:
    assert up.page_url == up.primary.url
    assert up.api_url == up.page_url + "/v1"
    assert up.await_pipeline(30) == "A token went through."


def test_whoever_starts_a_second_time_is_told_where_the_first_one_is(up: Federation) -> None:
    assert read_note(up.state)["page"] == up.page_url
    with pytest.raises(AlreadyUp, match=up.page_url):
        Federation(up.state, port=0, coordinator_port=0).up()


def test_the_person_at_this_machine_may_ask_for_the_status(up: Federation) -> None:
    assert [(node["name"], node["role"]) for node in up.status()["nodes"]] == [("operator", "operator")]


def test_a_restarted_process_serves_where_it_did(up: Federation) -> None:
    before = (up.coordinator_url, up.page_url, up.workers[0].url)
    for process in (up.coordinator, up.primary, up.workers[0]):
        process.restart()
        process.await_ready(60)
    assert (up.coordinator_url, up.page_url, up.workers[0].url) == before


@pytest.mark.usefixtures("without_coordinator")
def test_everything_ends_and_the_folder_is_free_again(tmp_path: Path) -> None:
    with Federation(tmp_path, workers=1, port=0, coordinator_port=0) as running:
        pids = [process.pid for process in running.processes]
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert read_note(tmp_path) == {}


@pytest.mark.usefixtures("without_coordinator")
def test_a_start_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [sys.executable, "-c", "import sys; sys.exit('no memory left')"]
    stub = federation._program
    monkeypatch.setattr(federation, "_program", lambda name: broken if name == "node" else stub(name))
    failing = Federation(tmp_path, workers=1, port=0, coordinator_port=0)
    with pytest.raises(ProcessFailed, match="no memory left"):
        failing.up()
    assert not [process for process in failing.processes if process.running]


def test_a_taken_port_is_found_before_anything_starts(tmp_path: Path) -> None:
    prepared: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Federation(tmp_path, port=other.getsockname()[1], coordinator_port=0)
        with pytest.raises(PortTaken, match="--port"):
            taken.up(before=lambda: prepared.append("fetched"))
    assert prepared == []


def test_with_lan_workers_get_ports_and_an_address_that_others_can_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federation, "lan_address", lambda: "10.1.2.3")
    lan = Federation(tmp_path, workers=2, lan=True)
    monkeypatch.setattr(Federation, "coordinator_url", "https://127.0.0.1:8420")
    commands = [worker._command(None) for worker in lan.workers]
    told = [dict(zip(command[4::2], command[5::2], strict=True)) for command in commands]
    ports = [options["--rpc-port"] for options in told]
    assert len(set(ports)) == 2
    assert [options["--lan-addr"] for options in told] == [f"10.1.2.3:{port}" for port in ports]
    assert {options["--host"] for options in told} == {"0.0.0.0"}
