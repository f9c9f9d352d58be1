"""The command line's first impression: fast, complete, and honest about what it imports."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import typer

from sharedllm.cli.main import GROUPS

HEAVY = ("torch", "numpy", "papermill", "matplotlib", "transformers", "peft", "jupyter")


@pytest.fixture(scope="module")
def modules_loaded_by_help() -> set[str]:
    script = (
        "import sys; sys.argv = ['sharedllm', '--help']\n"
        "from sharedllm.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print('|'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.strip().split("|"))


@pytest.mark.parametrize("module", HEAVY)
def test_help_does_not_import_anything_heavy(module: str, modules_loaded_by_help: set[str]) -> None:
    assert module not in modules_loaded_by_help


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_the_help_table_says_what_the_group_says(name: str) -> None:
    module, help_line = GROUPS[name]
    command = typer.main.get_command(importlib.import_module(module).app)
    assert (command.help or "").split("\n")[0] == help_line
