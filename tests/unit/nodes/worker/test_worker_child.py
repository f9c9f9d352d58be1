"""The engine's own process: only the weights that are asked for, and an orderly end."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sharedllm import store
from sharedllm.engines import NotServed, greet
from sharedllm.errors import UnknownName
from sharedllm.model import Config, Transformer, train_tokenizer
from sharedllm.nodes.worker import child
from sharedllm.wire import Frame, Kind, Limits, Link, Open
from tests.unit.nodes.worker.children import DEADLINE_S

CONFIG = Config(vocab_size=300, width=32, layers=2, heads=2, kv_heads=2, head_width=16, hidden=48)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A federation in whose library nobody published anything; what was asked of it."""
    asked: list[str] = []

    def nothing(client: object, sha256: str) -> None:
        asked.append(sha256)
        raise UnknownName("Nobody published it.")

    monkeypatch.setattr(child, "fetch_model", nothing)
    monkeypatch.setattr(child, "coordinator_url", lambda state: "https://127.0.0.1:1")
    monkeypatch.setattr(child, "Identity", SimpleNamespace(load=lambda state: None))
    return asked


def test_weights_of_another_version_are_not_served(weights: str, library: list[str], tmp_path: Path) -> None:
    with pytest.raises(NotServed, match=f"has the weights {weights[:12]}…, but bbbbbbbbbbbb… are asked for"):
        child.find("tiny", "b" * 64, 0, 1, state=tmp_path)
    assert library == ["b" * 64]


def test_a_model_that_is_nowhere_is_unknown(weights: str, library: list[str], tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Nobody published it"):
        child.find("other", "b" * 64, 0, 1, state=tmp_path)


def test_a_model_that_is_here_is_not_asked_for(weights: str, library: list[str], tmp_path: Path) -> None:
    child.find("whatever it is called there", weights, 0, 1, state=tmp_path)
    assert not library


def test_a_model_that_is_published_is_served(
    weights: str, library: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = store.resolve("tiny")
    monkeypatch.setattr(store, "with_weights", lambda sha256: None)
    monkeypatch.setattr(child, "fetch_model", lambda client, sha256: manifest)
    assert child.find("unknown here", weights, 0, 1, state=tmp_path).stop == 1


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model in a store of its own."""
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["the river rises in the hills"] * 4, 300)
    saved = store.save("tiny", Transformer(CONFIG), tokenizer, licence="MIT", provenance={})
    return saved.weights_sha256


@pytest.fixture
def running(weights: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The process, once it has said that it listens."""
    with tempfile.TemporaryDirectory(prefix="sl-") as folder:
        path = Path(folder) / "engine.sock"
        command = [sys.executable, "-m", "sharedllm.nodes.worker.child", "--socket", str(path)]
        command += ["--state", str(tmp_path), "--name", "w", "--memory-bytes", str(64 << 20)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ.copy()
        ) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["read_bytes_per_s"] > 0
            yield process, path
            process.kill()


@pytest.mark.slow
def test_on_sigterm_primaries_are_asked_to_move_and_waited_for(
    running: tuple[subprocess.Popen[bytes], Path], weights: str
) -> None:
    process, path = running
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    said = {"caller": "p", "worker": "w", "model": weights, "start": 0, "stop": 2, "pipeline": "x"}
    admission = json.dumps(said).encode()
    sock.sendall(struct.pack(">I", len(admission)) + admission)
    link = Link(sock, "engine", Limits())
    greet(link)
    link.post(Frame(Kind.OPEN, 1, meta=Open("x", "tiny", weights, 0, 2, None, {}).to_bytes()))
    assert link.receive(DEADLINE_S).kind is Kind.OPENED
    process.send_signal(signal.SIGTERM)
    assert link.receive(DEADLINE_S).kind is Kind.CLOSE
    assert process.poll() is None
    link.close()
    assert process.wait(DEADLINE_S) == 0
