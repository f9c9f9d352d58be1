"""The commands for specialists: what is printed, and what is refused; the rooms have their own tests."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from sharedllm import store
from sharedllm.cli.federation import specialist as commands
from sharedllm.cli.main import GROUPS
from sharedllm.errors import BadManifest, SharedLLMError, UnknownName
from sharedllm.model import Config, Transformer, train_tokenizer
from sharedllm.nodes import specialists as rooms
from sharedllm.nodes.identity import NodeKey
from sharedllm.store import specialists
from sharedllm.store.specialists import Signed

CONFIG = Config(vocab_size=300, width=16, layers=1, heads=1, kv_heads=1, head_width=16, hidden=16)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SHAREDLLM_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def mine(state: Path) -> Signed:
    """A model of this machine, signed by its publisher."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["the river rises"] * 4, 300)
    body = store.save("mine", Transformer(CONFIG), tokenizer, licence="MIT", provenance={"why": "a\x1b[2Jb"})
    return specialists.sign(body, NodeKey.load_or_create(state / "publisher" / "node.key").private)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A federation that takes everything; what it was given last."""
    said: dict[str, Any] = {}

    def offer(client: object, signed: Signed, *, leave_out: set[str], progress: object) -> None:
        said.update(signed=signed, leave_out=leave_out)

    monkeypatch.setattr(commands, "_client", lambda state, url: contextlib.nullcontext(url))
    monkeypatch.setattr(rooms, "offer", offer)
    return said


def run(*arguments: str) -> str:
    done = CliRunner().invoke(commands.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@contextlib.contextmanager
def refused(sentence: str, kind: type[SharedLLMError] = SharedLLMError) -> Iterator[None]:
    with pytest.raises(kind, match=sentence):
        yield


def test_it_is_a_group_of_the_front_door() -> None:
    assert GROUPS["specialist"][0] == commands.__name__


def test_list_tells_what_ships_how_it_did_and_who_signed() -> None:
    line = next(line for line in run("list").splitlines() if line.startswith("code"))
    assert "norm adapter of 76,120 bytes on smollm2-135m" in line
    assert "held-out 2.775 to 2.667 nats per token over 24 documents" in line
    assert "signed by the package's publisher" in line


def test_list_knows_what_is_yours(mine: Signed) -> None:
    specialists.publish("mine", mine)
    assert "whole model" in run("list").split("mine")[1].split("\n")[0]
    assert "signed by you" in run("list")


def test_list_of_a_federation(monkeypatch: pytest.MonkeyPatch, library: dict[str, Any]) -> None:
    entry = {"name": "far", "id": "a" * 64, "signer": "b" * 64, "adapter": "norm", "bytes": 12345}
    monkeypatch.setattr(rooms, "listing", lambda client: [{**entry, "missing": ["x"]}])
    said = run("list", "--federation")
    assert "far" in said
    assert "norm adapter, 12,345 bytes with its base, lacks 1 blob; signed by bbbbbbbbbbbbbbbb…" in said


def test_inspect_shows_the_whole_manifest(mine: Signed) -> None:
    specialists.publish("mine", mine)
    said = run("inspect", "mine")
    assert mine.id in said
    assert "the signature is right" in said


def test_inspect_lets_nobody_write_on_the_terminal(mine: Signed) -> None:
    specialists.publish("mine", mine)
    assert "\x1b" not in run("inspect", "mine")


def test_inspect_reads_a_file(mine: Signed, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(mine.to_bytes())
    assert mine.id in run("inspect", str(tmp_path / "m.json"))


def test_inspect_refuses_a_forged_file(mine: Signed, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(mine.to_bytes().replace(b"MIT", b"BSD"))
    with refused("forged", BadManifest):
        run("inspect", str(tmp_path / "m.json"))


def test_publish_sends_a_specialist_as_it_is(mine: Signed, library: dict[str, Any]) -> None:
    specialists.publish("mine", mine)
    assert mine.id in run("publish", "mine")
    assert library == {"signed": mine, "leave_out": set()}


def test_publish_leaves_out_an_adapters_base(library: dict[str, Any]) -> None:
    run("publish", "code")
    body = specialists.find("code").body
    assert library["leave_out"] == {body.weights_sha256, body.tokenizer_sha256}


def test_publish_sends_the_base_if_it_is_told_to(library: dict[str, Any]) -> None:
    run("publish", "code", "--with-base")
    assert library["leave_out"] == set()


def test_publish_signs_a_model_that_is_no_specialist_yet(mine: Signed, library: dict[str, Any]) -> None:
    run("publish", "mine", "--as", "ours")
    assert library["signed"].body == dataclasses.replace(mine.body, name="ours")
    assert specialists.find("ours") == library["signed"]


def test_publish_of_nothing_is_refused(library: dict[str, Any]) -> None:
    with refused("There is no model 'nothing'", UnknownName):
        run("publish", "nothing")


def test_fetch_says_what_came(mine: Signed, monkeypatch: pytest.MonkeyPatch, library: dict[str, Any]) -> None:
    asked: dict[str, Any] = {}

    def fetch(client: object, name: str, **given: Any) -> Signed:
        asked.update(given, client=client, name=name)
        return mine

    monkeypatch.setattr(rooms, "fetch", fetch)
    said = run("fetch", "mine", "--from", "https://x", "--signer", mine.signer, "--as", "theirs")
    assert said.startswith("theirs is here: whole model")
    assert (asked["client"], asked["signers"], asked["known_as"]) == ("https://x", [mine.signer], "theirs")


def test_train_signs_with_the_publishers_key(mine: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def trained(domain: str, base: str, **given: Any) -> Signed:
        asked.update(given, domain=domain, base=base)
        return mine

    monkeypatch.setattr(rooms, "trained", trained, raising=False)
    run("train", "code", "--base", "toy")
    assert (asked["domain"], asked["base"], asked["name"]) == ("code", "toy", "toy-code")
    assert asked["private"].public_key().public_bytes_raw().hex() == mine.signer


def test_without_a_federation_one_is_told_how_to_join(state: Path) -> None:
    with refused("No node of this user has joined a federation"):
        run("fetch", "code")


@pytest.mark.usefixtures("library")
def test_withdraw_says_what_is_taken_back(mine: Signed, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = NodeKey.load_or_create(state / "publisher" / "node.key").public_bytes

    def withdraw(client: object, name: str, private: Any) -> list[str]:
        assert private.public_key().public_bytes_raw() == key
        return [mine.id] if name == "mine" else []

    monkeypatch.setattr(rooms, "withdraw", withdraw)
    assert run("withdraw", "mine") == f"mine is withdrawn: {mine.id[:12]}.\n"


def test_nothing_heavy_is_loaded_to_say_what_there_is() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from typer.testing import CliRunner;"
        "from sharedllm.cli.federation.specialist import app;"
        "CliRunner().invoke(app, ['list']); print({'torch', 'fastapi', 'httpx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_test_that_is_no_test_is_not_believed(mine: Signed, state: Path) -> None:
    key = NodeKey.load_or_create(state / "publisher" / "node.key").private
    stated: list[Any] = [{"nats_per_token": {}}, "good", {"nats_per_token": {"base": "x"}}, None]
    for said in stated:
        odd = specialists.sign(dataclasses.replace(mine.body, provenance={"test": said}), key)
        specialists.publish("odd", odd)
        assert "no held-out loss stated" in run("list")


def test_inspect_is_json_where_it_speaks_for_others(mine: Signed) -> None:
    specialists.publish("mine", mine)
    line = next(line for line in run("inspect", "mine").splitlines() if line.startswith("provenance.why"))
    assert json.loads(line.split(maxsplit=1)[1]) == "a\x1b[2Jb"
