"""Becoming a node: its token is read, it joins if it must, and its role takes over this process."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sharedllm.cli.network.options import host_and_port
from sharedllm.nodes.errors import JoinRefused, NotAdmitted
from sharedllm.nodes.identity import (
    Identity,
    coordinator_url,
    fingerprint,
    join,
    parse_token,
    state_root,
)
from sharedllm.nodes.local import WORKER_PORT, free_port, lan_address, told_address
from sharedllm.nodes.operations import BadSetting, logs

__all__ = ["Listening", "admitted", "primary", "read_token", "state_folder", "worker"]

_MAX_TOKEN_BYTES = 4096
_EVERYWHERE = ("0.0.0.0", "::")
_TOKEN_NAME = "SHAREDLLM_JOIN_TOKEN"


@dataclass(frozen=True)
class Listening:
    """Where a node listens, and where others reach it."""

    host: str
    port: int
    lan: str | None = None
    wan: str | None = None


def state_folder(given: Path | None, role: str) -> Path:
    """Return the given folder, or the usual one of this role."""
    return given.absolute() if given is not None else state_root() / role


def read_token(file: str | None) -> str | None:
    """Return the token in ``file`` (``-``: the first line of stdin), else in SHAREDLLM_JOIN_TOKEN, or None.

    It leaves the environment, so that no child inherits it. Raises ``BadSetting`` if the file can't be read.
    """
    from_environment = os.environ.pop(_TOKEN_NAME, "").strip()
    if file is None:
        return from_environment or None
    try:
        if file == "-":
            text = sys.stdin.readline(_MAX_TOKEN_BYTES)
        else:
            with Path(file).open(encoding="ascii") as opened:
                text = opened.read(_MAX_TOKEN_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"The token file {file} can't be read ({type(error).__name__}).") from None
    return text.strip() or None


def admitted(folder: Path, url: str | None, role: str, name: str, token: str | None) -> str:
    """Make ``folder`` a node of the coordinator's federation unless it is one; return the coordinator's url.

    A token is used only if the folder is no node yet, or one of another federation. Raises ``JoinRefused``,
    ``NotAdmitted``, ``CoordinatorAway``, ``BadSetting``.
    """
    identity = _loaded(folder)
    if identity is not None and identity.role != role:
        raise BadSetting(f"{folder} belongs to a {identity.role}, not a {role}; give another with --state.")
    parsed = parse_token(token) if token is not None else None
    if identity is not None and (parsed is None or fingerprint(identity.ca) == parsed.fingerprint):
        return url or coordinator_url(folder)
    if parsed is None:
        raise NotAdmitted(
            f"The {role} in {folder} has not joined a federation. Run `sharedllm token` on the coordinator's "
            "machine and give what it prints in SHAREDLLM_JOIN_TOKEN, or with --join-token-file."
        )
    if url is None:
        raise JoinRefused("A token says who the coordinator is, not where; add --coordinator-url.")
    join(url, parsed, role, folder, name)
    return url


def worker(
    folder: Path,
    url: str,
    name: str,
    where: Listening,
    share: float,
    memory_bytes: int | None,
    threads: int | None,
    operations: tuple[str, int] | None,
    relay: bool,
    gossip_port: int | None = None,
) -> None:
    """Be a worker until told to end."""
    from sharedllm.nodes.proxy import Endpoint
    from sharedllm.nodes.worker import WorkerSettings, serve

    port = where.port
    if not port and where.host in _EVERYWHERE:  # what is advertised must be known before
        port = free_port(where.host, WORKER_PORT, set())
    candidates: list[tuple[Literal["lan", "wan"], tuple[str, int]]] = []
    if where.lan is not None:
        candidates.append(("lan", host_and_port(where.lan, "--lan-addr")))
    elif where.host in _EVERYWHERE:
        candidates.append(("lan", (lan_address() or "127.0.0.1", port)))
    if where.wan is not None:
        candidates.append(("wan", host_and_port(where.wan, "--wan-addr")))
    logs.setup("worker", name)
    serve(
        WorkerSettings(
            state=folder,
            coordinator_url=url,
            host=where.host,
            rpc_port=port,
            endpoints=[Endpoint(kind, host, port) for kind, (host, port) in candidates],
            name=name,
            share=share,
            memory_bytes=memory_bytes,
            threads=threads,
            operations=operations,
            relay=relay,
            gossip=None if gossip_port is None else (told_address(where.host), gossip_port),
        )
    )


def primary(
    folder: Path,
    url: str,
    name: str,
    where: Listening,
    model: str,
    specialists: tuple[str, ...],
    wire: Literal["fp16", "fp32", "int8"],
    spread: int | None,
    threads: int | None,
    api_key_file: Path | None,
) -> None:
    """Be a primary until told to end."""
    from sharedllm.nodes.primary import PrimarySettings, serve

    logs.setup("primary", name)
    serve(
        PrimarySettings(
            state=folder,
            coordinator_url=url,
            model=model,
            specialists=specialists,
            host=where.host,
            port=where.port,
            api_key_file=api_key_file,
            name=name,
            wire=wire,
            spread=spread,
            threads=threads,
        )
    )


def _loaded(folder: Path) -> Identity | None:
    if not (folder / "node.crt").is_file():
        return None
    return Identity.load(folder)
