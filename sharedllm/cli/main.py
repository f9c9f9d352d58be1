"""``sharedllm``: finds the command group by name and imports only that one.

``--help`` must answer in < 300 ms, so the table below holds the help lines, and torch, papermill and
matplotlib stay unimported until a command needs them. A test keeps table and groups equal.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import typer

from sharedllm.errors import SharedLLMError

GROUPS: dict[str, tuple[str, str]] = {
    "bets": ("sharedllm.cli.bets", "List, register, run, decide and check bets."),
    "book": ("sharedllm.cli.book", "Build the book, without network, and print where it is."),
    "corpus": ("sharedllm.cli.corpus", "Show the texts, users and domains, and fetch them."),
    "model": ("sharedllm.cli.model", "Fetch, convert, inspect and try models."),
    "train": ("sharedllm.cli.train", "Train a base model from a recipe."),
}


class LazyGroups(typer.core.TyperGroup):
    """A command group whose members are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(GROUPS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in GROUPS:
            return None
        module, help_line = GROUPS[cmd_name]
        if "--help" in sys.argv[1:2] or len(sys.argv) == 1:
            return typer.core.TyperCommand(cmd_name, help=help_line)
        command = typer.main.get_command(importlib.import_module(module).app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyGroups,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="SharedLLM: a community-owned LLM platform, and a catalogue of claims that anyone can rerun.\n\n"
    "Examples:\n\n"
    "  sharedllm bets list\n\n"
    "  sharedllm bets run b018 --regime 135m\n\n"
    "  sharedllm corpus list",
)


@app.callback()
def _root() -> None:
    """Hold the group open for its lazily imported members."""


def main() -> None:
    """Run the command line; a ``SharedLLMError`` becomes its sentence on stderr and its exit code."""
    # Torch's threads spin while they wait, and on a machine that also does something else that made two
    # threads 4 to 15 times slower than one [measured]; asleep they cost little.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except SharedLLMError as error:
        print(f"sharedllm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
