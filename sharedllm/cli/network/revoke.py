"""``sharedllm revoke``: exclude a node for good."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sharedllm.cli.network.options import DatabaseUrl, coordinator_state, refuse_typed_password

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def revoke(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(help="A node's name or id, as `sharedllm status` shows them.")],
    state: Annotated[
        Path | None, typer.Option(help="The coordinator's state folder.  [default: where it usually is]")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Exclude a node from the federation for good.

    Run it on the coordinator's machine. Every other node learns of it within one
    lease (9 s) and closes what that node had opened.

    Example: sharedllm revoke attic
    """
    refuse_typed_password(ctx, database_url)
    from sharedllm.nodes.coordinator import revoke as exclude

    identifier = exclude(coordinator_state(state), node, database_url=database_url)
    print(f"{node} ({identifier}) is revoked; every node refuses it within one lease (9 s).")
