"""``sharedllm status``: nodes, spans, speeds, leases, traffic, and how near the floor a pipeline runs."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sharedllm.nodes.operations import BadSetting

if TYPE_CHECKING:
    from sharedllm.nodes.coordinator import CoordinatorClient

__all__ = ["app", "member_client"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_REFRESH_S = 1.0
_USUAL = ("up/operator", "operator", "coordinator", "worker", "primary", "up/coordinator")


@app.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking, until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="What the coordinator answers, for programs.")
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(help="The state folder of any node of the federation.  [default: where it usually is]"),
    ] = None,
    coordinator_url: Annotated[
        str | None,
        typer.Option(
            envvar="SHAREDLLM_COORDINATOR_URL", help="Where the coordinator is.  [default: as joined]"
        ),
    ] = None,
) -> None:
    """Show nodes, spans, speeds, leases and traffic.

    Also how near its floor each pipeline runs, and why a node was left out.

    Example: sharedllm status --watch
    """
    if watch and as_json:
        raise BadSetting("--watch redraws a table and --json prints once; give one of them.")
    from sharedllm.cli.network.picture import picture

    client = member_client(state, coordinator_url)
    if as_json:
        print(json.dumps(client.status(), indent=1))
    elif watch:
        _watch(client)
    else:
        from rich.console import Console

        Console().print(picture(client.status()))


def member_client(state: Path | None, url: str | None) -> CoordinatorClient:
    """Speak to the coordinator as the node in ``state``, with a certificate that has not expired.

    Raises ``BadSetting`` where no node has joined.
    """
    from sharedllm.nodes.coordinator import CoordinatorClient
    from sharedllm.nodes.identity import Identity, coordinator_url, renew, state_root

    folders = [state] if state is not None else [state_root() / usual for usual in _USUAL]
    folder = next((folder for folder in folders if (folder / "node.crt").is_file()), None)
    if folder is None:
        raise BadSetting(
            f"No node of this user has joined a federation (nothing in {folders[0]}); run `sharedllm up`, or "
            "`sharedllm join` first, or name a node's state folder with --state."
        )
    identity = Identity.load(folder)
    where = url or coordinator_url(folder)
    if identity.role != "coordinator" and identity.peer.expired(time.time()):
        renew(identity, where)
    return CoordinatorClient(identity, where)


def _watch(client: CoordinatorClient) -> None:
    from rich.live import Live
    from rich.text import Text

    from sharedllm.cli.network.picture import picture
    from sharedllm.nodes.errors import CoordinatorAway

    never = threading.Event()
    shown: Any = Text("…")
    with Live(shown, screen=False, auto_refresh=False) as live:
        try:
            while True:
                try:
                    shown = picture(client.status())
                except CoordinatorAway as error:
                    shown = Text(str(error))
                live.update(shown, refresh=True)
                never.wait(_REFRESH_S)
        except KeyboardInterrupt:
            return
