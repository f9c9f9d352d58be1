"""``sharedllm up``: a whole federation on this machine, with a page and an API."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from sharedllm.cli.network.options import Memory, Model, Specialists, Threads, specialist_names
from sharedllm.cli.signals import interrupted_by_signals
from sharedllm.nodes.local import Federation, ProcessFailed

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_NODE_S = 3600.0

Workers = Annotated[
    int, typer.Option(min=1, max=8, envvar="SHAREDLLM_WORKERS", help="How many workers to start here.")
]
Spread = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        envvar="SHAREDLLM_SPREAD",
        help="Split over exactly so many.  [default: all workers; with --lan, as many as are fastest]",
    ),
]
Port = Annotated[
    int, typer.Option(min=0, max=65535, envvar="SHAREDLLM_PORT", help="For page and API; 0 picks a free one.")
]
CoordinatorPort = Annotated[
    int,
    typer.Option(
        min=0, max=65535, envvar="SHAREDLLM_COORDINATOR_PORT", help="For nodes; 0 picks a free one."
    ),
]
Lan = Annotated[
    bool,
    typer.Option(
        "--lan", envvar="SHAREDLLM_LAN", help="Let other machines join; the page stays on this one."
    ),
]
NoBrowser = Annotated[
    bool, typer.Option("--no-browser", envvar="SHAREDLLM_NO_BROWSER", help="Don't open the page.")
]
State = Annotated[
    Path | None,
    typer.Option(
        help="Folder for keys, directory and logs.  [default: up in $SHAREDLLM_STATE, "
        "else in ~/.local/state/sharedllm]"
    ),
]


@app.command()
def up(
    workers: Workers = 2,
    spread: Spread = None,
    model: Model = "smollm2-135m",
    specialists: Specialists = "",
    port: Port = 8421,
    coordinator_port: CoordinatorPort = 8420,
    lan: Lan = False,
    no_browser: NoBrowser = False,
    state: State = None,
    memory: Memory = None,
    threads: Threads = None,
) -> None:
    """Start a federation on this machine: page, API and workers.

    Without --lan everything listens on this machine alone. Ctrl-C ends it all; the next start goes on with
    the same keys.

    Examples:

      sharedllm up

      sharedllm up --lan --workers 1

      sharedllm up --specialists code,scripture,verse
    """
    from sharedllm.nodes.identity.files import state_root

    federation = Federation(
        state or state_root() / "up",
        model=model,
        specialists=specialist_names(specialists),
        workers=workers,
        spread=spread,
        port=port,
        coordinator_port=coordinator_port,
        lan=lan,
        memory_bytes=memory,
        threads=threads,
        say=_say,
    )
    with interrupted_by_signals(), _ending(federation):
        federation.up(before=lambda: _prepare(federation))
        _say("Sending the first token through the pipeline …")
        _say(federation.await_pipeline())
        _say(_welcome(federation, default_state=state is None))
        if not no_browser and _has_display():
            webbrowser.open(federation.page_url)
        federation.supervise()


def _say(sentence: str) -> None:
    print(sentence, flush=True)


def _fetch(model: str) -> None:
    """Fetch and convert the model, with its bars, in a process that takes its memory along when it ends."""
    _say(f"Looking for {model} …")
    command = [sys.executable, "-m", "sharedllm.cli.main", "model", "fetch", model]
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if code:
        raise ProcessFailed(f"{model} can't be served; what is wrong stands above.")


def _prepare(federation: Federation) -> None:
    """Have the model ready, and know that the specialists fit it, before anything is started."""
    _fetch(federation.model)
    if federation.specialists:
        command = [sys.executable, "-m", "sharedllm.nodes.primary.federated"]
        if subprocess.run([*command, federation.model, *federation.specialists], check=False).returncode:
            raise ProcessFailed("These specialists can't be served together; what is wrong stands above.")


def _welcome(federation: Federation, *, default_state: bool) -> str:
    """Say where everything is and what to do next."""
    count = len(federation.workers)
    workers = f"{count} worker{'s' if count != 1 else ''}"
    where, look = "", ""
    if not default_state:
        where, look = f" --state {federation.state / 'coordinator'}", f" --state {federation.operator}"
    if federation.lan:
        more = (
            "  Another machine joins with (one machine, within an hour; it is a secret):\n"
            f"    sharedllm join {federation.public_url} {federation.token(ttl_s=_NODE_S)}\n"
            f"  More tokens  sharedllm token{where}"
        )
    else:
        more = "  Other machines can join if you start it with: sharedllm up --lan"
    return (
        f"\nSharedLLM serves {_served(federation)} with {workers}.\n"
        f"  Page         {federation.page_url}\n"
        f"  API          {federation.api_url}  (OpenAI's)\n"
        f"{more}\n"
        f"  Look         sharedllm status --watch{look}\n"
        f"  Logs         {federation.state / 'logs'}\n"
        "  End          Ctrl-C"
    )


def _served(federation: Federation) -> str:
    """Name the model, and the specialists that speak for it."""
    names = ", ".join(federation.specialists)
    return f"a mixture of {names} on {federation.model}" if names else federation.model


def _has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextlib.contextmanager
def _ending(federation: Federation) -> Iterator[None]:
    """End every process, gracefully after the first Ctrl-C and at once after the second."""
    try:
        try:
            yield
        except KeyboardInterrupt:
            _say("\nEnding; Ctrl-C again ends at once …")
        finally:
            federation.stop()
    except KeyboardInterrupt:
        federation.kill()
        federation.stop()
