"""A join token that was typed as an argument is gone from the process title before anything is sent."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sharedllm.cli.network.join import hidden

TOKEN = f"SL1-{'ab' * 32}-{'cd' * 8}-{'x' * 43}"


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="process titles are read from /proc")
def test_a_typed_token_is_gone_before_the_first_connection(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as coordinator:
        coordinator.settimeout(60)
        url = f"https://127.0.0.1:{coordinator.getsockname()[1]}"
        command = [sys.executable, "-m", "sharedllm.cli.main", "join", url, TOKEN, "--state", str(tmp_path)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SHAREDLLM_")}
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as joining:
            connection, _ = coordinator.accept()
            title = Path(f"/proc/{joining.pid}/cmdline").read_bytes()
            around = Path(f"/proc/{joining.pid}/environ").read_bytes()
            connection.close()
            coordinator.close()
            assert joining.stderr is not None
            said = joining.stderr.read()
    assert b"join" in title
    for shown in (title, around, said):
        assert b"SL1-" not in shown


def test_only_the_token_is_hidden() -> None:
    arguments = ["join", "https://a:1", TOKEN, "--name", "attic"]
    assert hidden(arguments, TOKEN) == ["join", "https://a:1", "-", "--name", "attic"]
