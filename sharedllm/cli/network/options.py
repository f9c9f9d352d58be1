"""Options that several commands share, how they are written, and which state folder is meant."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated

import typer

from sharedllm.nodes.identity.files import state_root
from sharedllm.nodes.operations import BadSetting, parse_bytes, parse_duration

__all__ = [
    "ApiKeyFile",
    "DatabaseUrl",
    "GossipPort",
    "Memory",
    "Model",
    "Operations",
    "ServerUrl",
    "Share",
    "Specialists",
    "Threads",
    "Ttl",
    "coordinator_state",
    "host_and_port",
    "machine_name",
    "refuse_typed_password",
    "specialist_names",
]

_NAME = re.compile(r"[^A-Za-z0-9 .:@+_-]")
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):(\d{1,5})")
_MAX_PORT = 65535


def _share(text: str) -> float:
    """Read ``0.5`` or ``50%`` as a share; raises ``BadSetting``."""
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?) ?(%?)", str(text).strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share <= 1:
        raise BadSetting(
            f"The share is {str(text)[:20]!r}; expected more than 0 and at most 1, as 0.5 or 50%."
        )
    return share


def host_and_port(text: str, flag: str) -> tuple[str, int]:
    """Read ``192.168.1.7:50052``, ``name:1`` or ``[fe80::1]:1``; raises ``BadSetting`` naming the flag."""
    found = _ADDRESS.fullmatch(text.strip())
    if found is None or int(found[3]) > _MAX_PORT:
        raise BadSetting(f"{flag} is {text[:80]!r}; expected HOST:PORT, such as 192.168.1.7:50052.")
    return found[1] or found[2], int(found[3])


def specialist_names(text: str) -> tuple[str, ...]:
    """Read ``a,b,c``; raises ``BadSetting`` for an empty name."""
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    if not all(names):
        raise BadSetting(
            f"--specialists is {text[:80]!r}; expected names with commas between, as code,verse."
        )
    return names


def machine_name() -> str:
    """Return this machine's name as one that a federation accepts."""
    return _NAME.sub("-", socket.gethostname().split(".")[0])[:40].strip(" .:@+-") or "node"


def coordinator_state(given: Path | None) -> Path:
    """Return the coordinator's state folder: the given one, or the one that exists where they usually are.

    Raises ``BadSetting`` when there is none, or more than one.
    """
    if given is not None:
        return given
    usual = [state_root() / "coordinator", state_root() / "up" / "coordinator"]
    found = [folder for folder in usual if (folder / "authority.key").is_file()]
    match found:
        case [folder]:
            return folder
        case []:
            raise BadSetting(
                f"No coordinator has its state in {usual[0]} or {usual[1]}; run this on the coordinator's "
                "machine, as its user, or name its folder with --state."
            )
    raise BadSetting(f"Coordinators have their state in {found[0]} and {found[1]}; name one with --state.")


def refuse_typed_password(ctx: typer.Context, database_url: str | None) -> None:
    """Raise ``BadSetting`` if a database's password was given as an argument, which every user can read."""
    source = ctx.get_parameter_source("database_url")
    if (
        database_url
        and re.search(r"//[^/@]*:[^/@]+@", database_url)
        and source
        and source.name == "COMMANDLINE"
    ):
        raise BadSetting(
            "The database's address holds a password, and everyone on this machine can read a command's "
            "arguments; give it by SHAREDLLM_DATABASE_URL or the settings file instead."
        )


Memory = Annotated[
    int | None,
    typer.Option(
        parser=parse_bytes,
        metavar="BYTES",
        envvar="SHAREDLLM_MEMORY",
        help="Memory for weights and caches, such as 4GB.  [default: what is free]",
    ),
]
Share = Annotated[
    float,
    typer.Option(
        parser=_share,
        metavar="SHARE",
        envvar="SHAREDLLM_SHARE",
        help="How much of this machine's time to give, as 0.5 or 50%.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, max=1024, envvar="SHAREDLLM_THREADS", help="Threads to compute with.  [default: cores]"
    ),
]
Ttl = Annotated[
    float,
    typer.Option(
        parser=parse_duration, metavar="DURATION", help="How long it can be used, as 30min, 1h or 2d."
    ),
]
Model = Annotated[
    str,
    typer.Option(
        envvar="SHAREDLLM_MODEL", help="A known name, a GGUF file, a model folder, or a repository."
    ),
]
Specialists = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        envvar="SHAREDLLM_SPECIALISTS",
        help="Serve these too, by name and as a mixture: code,scripture,verse. `sharedllm specialist list` "
        "names those of this machine.",
    ),
]
GossipPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        envvar="SHAREDLLM_GOSSIP_PORT",
        help="Gossip there with other members about who is here, for when the coordinator is away; 0 picks a "
        "free port.  [default: don't]",
    ),
]
Operations = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        envvar="SHAREDLLM_OPERATIONS",
        help="Where to serve /healthz, /readyz and /metrics.  [default: nowhere]",
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="SHAREDLLM_DATABASE_URL",
        show_default=False,
        help="Another database, as SQLAlchemy writes it.  [default: SQLite in the state folder]",
    ),
]
ServerUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="SHAREDLLM_URL",
        help="A primary's address.  [default: what `up` on this machine serves, else http://127.0.0.1:8421]",
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        envvar="SHAREDLLM_API_KEY_FILE",
        help="A file with the API's key, if it asks for one (or the key itself in SHAREDLLM_API_KEY).",
    ),
]
