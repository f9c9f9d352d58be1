"""``sharedllm join``: give this machine to a federation."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from sharedllm.cli.network.node import LanAddress, Name, Relay, RpcPort, State, WanAddress
from sharedllm.cli.network.options import Memory, Operations, Share, Threads, host_and_port, machine_name

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def join(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(help="The coordinator's address, https://HOST:8420.")],
    token: Annotated[
        str | None,
        typer.Argument(
            envvar="SHAREDLLM_JOIN_TOKEN",
            show_envvar=True,
            help="What `sharedllm token` printed there; - reads it from stdin.",
        ),
    ] = None,
    name: Name = None,
    rpc_port: RpcPort = 50052,
    lan_addr: LanAddress = None,
    wan_addr: WanAddress = None,
    share: Share = "100%",  # type: ignore[assignment]  # its parser makes a number of it
    memory: Memory = None,
    threads: Threads = None,
    relay: Relay = False,
    state: State = None,
    operations: Operations = None,
) -> None:
    """Give this machine to a federation, and work for it.

    It works until Ctrl-C. A machine that has joined before needs no new token. A token among
    the arguments is taken out at once.

    Examples:

      sharedllm join https://192.168.1.5:8420 SL1-…

      sharedllm join https://192.168.1.5:8420 - --share 50% --memory 4GB < token-file
    """
    from sharedllm.cli.network import serving

    source = ctx.get_parameter_source("token")
    if source is not None and source.name == "COMMANDLINE" and token and token != "-":
        _without_token(sys.argv, token)
    given = serving.read_token("-") if token == "-" else token
    os.environ.pop("SHAREDLLM_JOIN_TOKEN", None)
    folder, called = serving.state_folder(state, "worker"), name or machine_name()
    serving.admitted(folder, url, "worker", called, given)
    print(f"{called} has joined {url}; it works until Ctrl-C.", file=sys.stderr, flush=True)
    place = host_and_port(operations, "--operations") if operations else None
    where = serving.Listening("0.0.0.0", rpc_port, lan_addr, wan_addr)
    serving.worker(folder, url, called, where, share, memory, threads, place, relay)


def hidden(arguments: Sequence[str], token: str) -> list[str]:
    """Return the arguments with ``-`` in place of the token."""
    return ["-" if argument == token else argument for argument in arguments]


def _without_token(argv: Sequence[str], token: str) -> NoReturn:
    """Become the same program with the token on stdin: every user of the machine can read arguments."""
    reading, writing = os.pipe()
    os.write(writing, token.encode()[:4096] + b"\n")
    os.close(writing)
    os.dup2(reading, 0)
    os.execv(sys.executable, [sys.executable, "-m", "sharedllm.cli.main", *hidden(argv[1:], token)])
