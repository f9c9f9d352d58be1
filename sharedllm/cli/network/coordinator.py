"""``sharedllm coordinator``: serve a federation's directory and certificate authority."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sharedllm.cli.network.options import (
    DatabaseUrl,
    GossipPort,
    Operations,
    host_and_port,
    refuse_typed_password,
)
from sharedllm.nodes.operations import BadSetting, parse_bytes

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Host = Annotated[str, typer.Option(envvar="SHAREDLLM_COORDINATOR_HOST", help="Where to listen.")]
Port = Annotated[
    int, typer.Option(min=0, max=65535, envvar="SHAREDLLM_COORDINATOR_PORT", help="0 picks a free one.")
]
Certificate = Annotated[
    Path | None,
    typer.Option(envvar="SHAREDLLM_TLS_CERT", help="A certificate (PEM) for a public name, with its chain."),
]
Key = Annotated[Path | None, typer.Option(envvar="SHAREDLLM_TLS_KEY", help="The key (PEM) of --tls-cert.")]
State = Annotated[
    Path | None,
    typer.Option(
        help="Folder for keys and directory.  [default: coordinator in $SHAREDLLM_STATE, "
        "else in ~/.local/state/sharedllm]"
    ),
]
RelayPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        envvar="SHAREDLLM_RELAY_PORT",
        help="Also relay, there, between nodes that can't meet.",
    ),
]
Library = Annotated[
    int,
    typer.Option(
        parser=parse_bytes,
        metavar="BYTES",
        envvar="SHAREDLLM_LIBRARY",
        show_default="8GiB",
        help="The most that published models may take here.",
    ),
]


@app.command()
def coordinator(
    ctx: typer.Context,
    host: Host = "0.0.0.0",
    port: Port = 8420,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    state: State = None,
    database_url: DatabaseUrl = None,
    relay_port: RelayPort = None,
    library: Library = 8 << 30,
    gossip_port: GossipPort = None,
    operations: Operations = None,
) -> None:
    """Serve a federation's directory and certificate authority.

    Nodes trust it by the join tokens that `sharedllm token` prints; --tls-cert is for a public name only.

    Example: sharedllm coordinator --host 0.0.0.0 --port 8420
    """
    from sharedllm.nodes.coordinator import CoordinatorSettings, serve
    from sharedllm.nodes.identity.files import state_root, write_public
    from sharedllm.nodes.local import port_of, told_address
    from sharedllm.nodes.operations import logs

    refuse_typed_password(ctx, database_url)
    if (tls_cert is None) != (tls_key is None):
        raise BadSetting("--tls-cert and --tls-key belong together; give both or neither.")
    folder = state or state_root() / "coordinator"
    place = host_and_port(operations, "--operations") if operations else None

    def ready(url: str) -> None:
        # for `sharedllm status` on this machine
        write_public(folder / "coordinator.url", f"https://{_reached(host)}:{port_of(url)}".encode())
        print(f"ready {url}", flush=True)
        if sys.stderr.isatty():
            print("Let a machine join with what `sharedllm token` prints here.", file=sys.stderr)

    logs.setup("coordinator", "coordinator")
    gossip = None if gossip_port is None else (told_address(host), gossip_port)
    settings = CoordinatorSettings(
        folder, host, port, database_url, tls_cert, tls_key, relay_port, gossip, place, library
    )
    serve(settings, ready)


def _reached(host: str) -> str:
    """Return an address of this machine at which something that listens on ``host`` is reached."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{shown}]" if ":" in shown else shown
