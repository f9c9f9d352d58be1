"""``sharedllm token``: print a token with which a machine can join."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sharedllm.cli.network.options import DatabaseUrl, Ttl, coordinator_state, refuse_typed_password

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def token(
    ctx: typer.Context,
    uses: Annotated[int, typer.Option(min=1, max=1000, help="How many machines may join with it.")] = 1,
    ttl: Ttl = "1h",  # type: ignore[assignment]  # its parser makes seconds of it
    state: Annotated[
        Path | None, typer.Option(help="The coordinator's state folder.  [default: where it usually is]")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Print a token with which a machine can join.

    Run it on the coordinator's machine. The token is a secret until it is used up or has expired, and
    it proves the coordinator to who joins with it.

    Examples:

      sharedllm token

      sharedllm token --uses 3 --ttl 2d
    """
    refuse_typed_password(ctx, database_url)
    from sharedllm.nodes.coordinator import create_token

    made = create_token(coordinator_state(state), uses=uses, ttl_s=ttl, database_url=database_url)
    print(made)
    if sys.stdout.isatty():
        print("On the other machine: sharedllm join https://THIS-MACHINE:8420 TOKEN", file=sys.stderr)
