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
from sharedllm.model import Config, Transformer, train_tokenizer
from sharedllm.nodes.worker import child
from sharedllm.wire import Frame, Kind, Limits, Link, Open
from tests.unit.nodes.worker.children import DEADLINE_S

CONFIG = Config(vocab_size=300, width=32, layers=2, heads=2, kv_heads=2, head_width=16, hidden=48)


def test_weights_of_another_version_are_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "resolve", lambda name: SimpleNamespace(weights_sha256="a" * 64))
    with pytest.raises(NotServed, match="has the weights aaaaaaaaaaaa…, but bbbbbbbbbbbb… are asked for"):
        child.find("tiny", "b" * 64, 0, 1)


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
