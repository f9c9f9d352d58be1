"""What people write is read kindly; what can't be meant, or would show a secret, is a sentence."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sharedllm.cli.main import GROUPS
from sharedllm.cli.network import coordinator, node, token, up
from sharedllm.cli.network.options import coordinator_state, host_and_port, machine_name
from sharedllm.cli.network.serving import read_token
from sharedllm.errors import SharedLLMError
from sharedllm.nodes.operations import BadSetting

COMMANDS = ["up", "coordinator", "token", "node", "join", "status", "chat", "generate", "revoke"]


def refusal(app: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SharedLLMError), result.output
    return str(result.exception)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("192.168.1.7:50052", ("192.168.1.7", 50052)),
        ("attic.local:1", ("attic.local", 1)),
        ("[::1]:9", ("::1", 9)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, place: tuple[str, int]) -> None:
    assert host_and_port(text, "--lan-addr") == place


@pytest.mark.parametrize(
    "text", ["", "attic", ":1", "attic:", "::1:9", "attic:99999", "a b:1", "https://a:1"]
)
def test_what_is_no_address_names_the_flag(text: str) -> None:
    with pytest.raises(BadSetting, match=r"--lan-addr is .* expected HOST:PORT"):
        host_and_port(text, "--lan-addr")


@pytest.mark.parametrize(
    ("called", "name"), [("attic.example.org", "attic"), ("Ann's laptop", "Ann-s laptop"), ("...", "node")]
)
def test_a_machines_name_is_one_that_a_federation_accepts(
    called: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: called)
    assert machine_name() == name


@pytest.mark.parametrize("share", ["0", "101%", "2", "half", "-1"])
def test_a_share_is_more_than_nothing_and_at_most_all(share: str) -> None:
    assert "expected more than 0 and at most 1" in refusal(node.app, "--role", "worker", "--share", share)


@pytest.mark.parametrize(
    ("role", "option"),
    [("primary", "--rpc-port"), ("primary", "--share"), ("worker", "--port"), ("worker", "--spread")],
)
def test_an_option_of_the_other_role_is_refused(role: str, option: str) -> None:
    assert refusal(node.app, "--role", role, option, "1").startswith(f"{option} means nothing to a {role}")


def test_a_database_password_among_the_arguments_is_refused_unrepeated() -> None:
    said = refusal(coordinator.app, "--database-url", "postgresql://ann:hunter2@db/sharedllm")
    assert "SHAREDLLM_DATABASE_URL" in said
    assert "hunter2" not in said


def test_half_a_certificate_is_refused() -> None:
    assert "belong together" in refusal(coordinator.app, "--tls-cert", "cert.pem")


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHAREDLLM_STATE", str(tmp_path))
    return tmp_path


def found(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "authority.key").touch()
    return folder


def test_the_only_coordinator_of_this_machine_is_meant(states: Path) -> None:
    folder = found(states / "up" / "coordinator")
    assert coordinator_state(None) == folder


def test_of_two_coordinators_one_must_be_named(states: Path) -> None:
    found(states / "coordinator"), found(states / "up" / "coordinator")
    with pytest.raises(BadSetting, match="name one with --state"):
        coordinator_state(None)


def test_a_machine_without_a_coordinator_makes_no_token(states: Path) -> None:
    assert "run this on the coordinator's machine" in refusal(token.app)


def test_a_node_that_never_joined_says_how_to(states: Path) -> None:
    assert "Run `sharedllm token` on the coordinator's machine" in refusal(node.app, "--role", "worker")


def test_a_token_is_read_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("SL1-abc\nmore\n"))
    assert read_token("-") == "SL1-abc"


def test_a_token_leaves_the_environment_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAREDLLM_JOIN_TOKEN", "SL1-abc")
    assert (read_token(None), read_token(None)) == ("SL1-abc", None)


def test_a_token_file_that_is_missing_is_a_sentence() -> None:
    with pytest.raises(BadSetting, match=r"/no/such can't be read"):
        read_token("/no/such")


@pytest.mark.parametrize("option", ["--port", "--coordinator-port"])
def test_up_names_a_taken_port_and_its_flag_before_anything_starts(
    option: str, tmp_path: Path, taken_port: int
) -> None:
    other = "--coordinator-port" if option == "--port" else "--port"
    said = refusal(up.app, option, str(taken_port), other, "0", "--state", str(tmp_path), "--no-browser")
    assert said.startswith(f"Port {taken_port} (")
    assert f"Give another with {option}." in said
    assert not list(tmp_path.glob("logs/*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lines_are_whole_in_a_narrow_terminal(command: str) -> None:
    assert len(GROUPS[command][1]) <= 80 - 17
