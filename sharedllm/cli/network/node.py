"""``sharedllm node``: be a worker or a primary of a federation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sharedllm.cli.network.options import (
    GossipPort,
    Memory,
    Operations,
    Share,
    Specialists,
    Threads,
    host_and_port,
    machine_name,
    specialist_names,
)
from sharedllm.nodes.operations import BadSetting

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_WORKERS = ("rpc_port", "lan_addr", "wan_addr", "share", "memory", "relay", "gossip_port", "operations")
_PRIMARYS = ("model", "specialists", "port", "api_key_file", "wire", "spread")

Role = Annotated[Literal["worker", "primary"], typer.Option(envvar="SHAREDLLM_ROLE", help="What to be.")]
CoordinatorUrl = Annotated[
    str | None,
    typer.Option(
        envvar="SHAREDLLM_COORDINATOR_URL",
        help="Where the coordinator is.  [default: where this node joined]",
    ),
]
JoinTokenFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="SHAREDLLM_JOIN_TOKEN_FILE",
        help="Join first, with the token in this file (- is stdin), or with the one in SHAREDLLM_JOIN_TOKEN.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(envvar="SHAREDLLM_NAME", help="What people call it.  [default: the machine's name]"),
]
State = Annotated[
    Path | None,
    typer.Option(
        help="Folder for its key and certificate.  [default: one named after the role in $SHAREDLLM_STATE, "
        "else in ~/.local/state/sharedllm]"
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        envvar="SHAREDLLM_HOST",
        help="Where to listen.  [default: 0.0.0.0 for a worker, 127.0.0.1 for a primary]",
    ),
]
RpcPort = Annotated[
    int,
    typer.Option(
        min=0, max=65535, envvar="SHAREDLLM_RPC_PORT", help="A worker's one port; 0 picks a free one."
    ),
]
LanAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        envvar="SHAREDLLM_LAN_ADDR",
        help="Where other machines of the local network reach a worker.  [default: this machine, --rpc-port]",
    ),
]
WanAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        envvar="SHAREDLLM_WAN_ADDR",
        help="Where machines elsewhere reach a worker, if they do.",
    ),
]
Relay = Annotated[
    bool,
    typer.Option(
        "--relay", envvar="SHAREDLLM_RELAY", help="A worker also relays between nodes that can't meet."
    ),
]
PrimaryModel = Annotated[
    str,
    typer.Option(
        envvar="SHAREDLLM_MODEL", help="What a primary serves: a name, GGUF file, folder, repository."
    ),
]
Port = Annotated[
    int, typer.Option(min=0, max=65535, envvar="SHAREDLLM_PORT", help="A primary's port for page and API.")
]
Wire = Annotated[
    Literal["fp16", "fp32", "int8"],
    typer.Option(envvar="SHAREDLLM_WIRE", help="How a primary has activations sent."),
]
Spread = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        envvar="SHAREDLLM_SPREAD",
        help="Split a primary's model over exactly so many workers.",
    ),
]
RequiredKey = Annotated[
    Path | None,
    typer.Option(
        envvar="SHAREDLLM_API_KEY_FILE",
        help="A file with the key that a primary's callers must show; needed beyond loopback.",
    ),
]


@app.command()
def node(
    ctx: typer.Context,
    role: Role,
    coordinator_url: CoordinatorUrl = None,
    join_token_file: JoinTokenFile = None,
    name: Name = None,
    state: State = None,
    host: Host = None,
    rpc_port: RpcPort = 50052,
    lan_addr: LanAddress = None,
    wan_addr: WanAddress = None,
    share: Share = "100%",  # type: ignore[assignment]  # its parser makes a number of it
    memory: Memory = None,
    relay: Relay = False,
    gossip_port: GossipPort = None,
    model: PrimaryModel = "smollm2-135m",
    specialists: Specialists = "",
    port: Port = 8421,
    wire: Wire = "fp16",
    spread: Spread = None,
    api_key_file: RequiredKey = None,
    threads: Threads = None,
    operations: Operations = None,
) -> None:
    """Be a worker or a primary of a federation.

    Examples:

      sharedllm node --role worker --coordinator-url https://192.168.1.5:8420 --rpc-port 50052

      sharedllm node --role primary --model smollm2-135m --port 8421
    """
    from sharedllm.cli.network import serving

    _refuse_the_other_roles(ctx, role)
    folder = serving.state_folder(state, role)
    called = name or machine_name()
    url = serving.admitted(folder, coordinator_url, role, called, serving.read_token(join_token_file))
    if role == "worker":
        place = host_and_port(operations, "--operations") if operations else None
        where = serving.Listening(host or "0.0.0.0", rpc_port, lan_addr, wan_addr)
        serving.worker(folder, url, called, where, share, memory, threads, place, relay, gossip_port)
    else:
        where = serving.Listening(host or "127.0.0.1", port)
        names = specialist_names(specialists)
        serving.primary(folder, url, called, where, model, names, wire, spread, threads, api_key_file)


def _refuse_the_other_roles(ctx: typer.Context, role: str) -> None:
    """Raise ``BadSetting`` for an option that was given and that this role would ignore."""
    for name in _PRIMARYS if role == "worker" else _WORKERS:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise BadSetting(f"--{name.replace('_', '-')} means nothing to a {role}; leave it out.")
