"""``sharedllm``: finds the command group by name and imports only that one.

``--help`` must answer in < 300 ms, so the table below holds the help lines, and torch, papermill and
matplotlib stay unimported until a command needs them. A test keeps table and groups equal.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sharedllm.errors import SharedLLMError

GROUPS: dict[str, tuple[str, str]] = {
    "chat": ("sharedllm.cli.talk.chat", "Talk with the model in the terminal."),
    "generate": (
        "sharedllm.cli.talk.generate",
        "Continue a prompt, or answer it, through a running primary.",
    ),
    "join": ("sharedllm.cli.network.join", "Give this machine to a federation, and work for it."),
    "status": ("sharedllm.cli.network.status", "Show nodes, spans, speeds, leases and traffic."),
    "token": ("sharedllm.cli.network.token", "Print a token with which a machine can join."),
    "up": ("sharedllm.cli.network.up", "Start a federation on this machine: page, API and workers."),
    "revoke": ("sharedllm.cli.network.revoke", "Exclude a node from the federation for good."),
    "vote": ("sharedllm.cli.network.vote", "Vote for a node's expulsion, or list who is accused."),
    "coordinator": (
        "sharedllm.cli.network.coordinator",
        "Serve a federation's directory and certificate authority.",
    ),
    "node": ("sharedllm.cli.network.node", "Be a worker or a primary of a federation."),
    "adapter": (
        "sharedllm.cli.federation.adapter",
        "Make a base your own: fit it to your text, and see whether that helped.",
    ),
    "receipt": (
        "sharedllm.cli.federation.receipt",
        "Verify receipts of answers, and see who said which token.",
    ),
    "specialist": (
        "sharedllm.cli.federation.specialist",
        "Train specialists, publish them, and fetch those of others.",
    ),
    "bets": ("sharedllm.cli.bets", "List, register, run, decide and check bets."),
    "book": ("sharedllm.cli.book", "Build the book, without network, and print where it is."),
    "corpus": ("sharedllm.cli.corpus", "Show the texts, users and domains, and fetch them."),
    "model": ("sharedllm.cli.model", "Fetch, convert, inspect and try models."),
    "train": ("sharedllm.cli.train", "Train a base model from a recipe."),
}

WITH_SETTINGS = ("sharedllm.cli.network.", "sharedllm.cli.talk.")


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
    pretty_exceptions_show_locals=False,  # they may hold a secret
    help="SharedLLM: a community-owned LLM platform, and a catalogue of claims that anyone can rerun.\n\n"
    "Examples:\n\n"
    "  sharedllm up\n\n"
    "  sharedllm join https://192.168.1.5:8420 TOKEN\n\n"
    "  sharedllm bets list\n\n"
    "  sharedllm bets run b018 --regime 135m\n\n"
    "  sharedllm corpus list",
)


@app.callback()
def _root(
    ctx: typer.Context,
    settings: Annotated[
        Path | None,
        typer.Option(
            envvar="SHAREDLLM_SETTINGS",
            help="Settings of the network's commands, as TOML: a table for each, or keys for all. Flags and "
            "environment win.  [default: ~/.config/sharedllm/settings.toml]",
        ),
    ] = None,
) -> None:
    """Give the command that was called what the settings file says about its options."""
    called = ctx.invoked_subcommand or ""
    usual = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sharedllm" / "settings.toml"
    if not GROUPS.get(called, ("",))[0].startswith(WITH_SETTINGS) or (
        settings is None and not usual.is_file()
    ):
        return
    from sharedllm.nodes.operations import read_settings, settings_of

    assert isinstance(ctx.command, LazyGroups)
    options = [parameter.name for parameter in ctx.command.get_command(ctx, called).params]
    commands = [name for name, (module, _) in GROUPS.items() if module.startswith(WITH_SETTINGS)]
    ctx.default_map = {called: settings_of(read_settings(settings or usual), called, options, commands)}


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
