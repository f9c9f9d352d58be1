"""A small repository with one bet, in which everything real can be done: git, ledger, notebook, run.

``lab.pretend()`` puts a finished child in the place of papermill: the executed notebook and its record are
written as the child would, so that judging, deciding and checking are tested without a kernel. ``test_run``
uses the real one.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sharedllm.bets import Bet, Catalogue, Result, run
from sharedllm.bets.decide import decide, register
from sharedllm.bets.runner.process import Watched
from sharedllm.bets.runner.recording import RECORD_MIME
from sharedllm.bets.scaffold import scaffold

GOOD = {"difference_nats": -0.2, "control_difference_nats": 0.2}
WHO = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")


class Lab:
    """The repository and what a researcher does in it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = root, monkeypatch
        (root / "catalogue" / "schema").mkdir(parents=True)
        (root / ".gitignore").write_text("build/\n")
        (root / "constraints.txt").write_text("torch==2.13.0\n")
        self.git("init", "-q", "-b", "main")
        self.catalogue = Catalogue(root / "catalogue")
        self.folder = scaffold(self.catalogue, "transparency", "b118-slow-audit")
        self.commit("Add a bet")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *WHO, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        )
        return done.stdout

    def commit(self, message: str) -> str:
        self.git("add", ".")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    @property
    def bet(self) -> Bet:
        return self.catalogue.bet("b118")

    def edit_toml(self, old: str, new: str) -> None:
        path = self.folder / "bet.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def set_cells(self, measure: str, record: str = "record(metrics)") -> None:
        """Replace the code between the parameters and the record."""
        path = self.folder / "bet.ipynb"
        notebook = json.loads(path.read_text())
        start = "from sharedllm.bets import checkpoint, progress, record\n"
        notebook["cells"][2]["source"] = start + measure
        notebook["cells"][3]["source"] = record
        path.write_text(json.dumps(notebook))

    def pretend(self, metrics: Mapping[str, Any] = GOOD, wall_s: float = 1.0) -> None:
        """Let the next runs "execute" at once and record ``metrics``."""

        def watch(job: Mapping[str, Any], *_: Any) -> Watched:
            notebook = json.loads(Path(job["notebook"]).read_text())
            payload = {
                "metrics": dict(metrics),
                "per_seed": {},
                "series": [],
                "checkpoints": {"computed": 0, "reused": 0},
            }
            data = {RECORD_MIME: payload, "text/plain": "Recorded"}
            output = {"output_type": "display_data", "data": data, "metadata": {}}
            notebook["cells"][-1]["outputs"] = [output]
            Path(job["output"]).write_text(json.dumps(notebook))
            return Watched(how="finished", wall_s=wall_s, cells=4, cell=4)

        self.monkeypatch.setattr("sharedllm.bets.runner.execution.watch", watch)

    def run(self, **more: Any) -> Result:
        return run(self.catalogue, self.bet, "toy", **more)

    def register(self) -> None:
        register(self.catalogue, self.bet)
        self.commit("Register b118")

    def decide(self, metrics: Mapping[str, Any] = GOOD, wall_s: float = 1.0) -> None:
        """Run canonically, decide, commit."""
        self.pretend(metrics, wall_s)
        self.run()
        decide(self.catalogue, self.bet, "toy")
        self.commit("Decide b118")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "home"))
    return Lab(tmp_path / "repository", monkeypatch)
