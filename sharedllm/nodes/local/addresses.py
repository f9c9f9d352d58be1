"""Which addresses this machine has for others, and which ports are free; nothing is sent anywhere."""

from __future__ import annotations

import contextlib
import socket

from sharedllm.nodes.operations import PortTaken

__all__ = ["free_port", "lan_address", "port_of", "refuse_taken", "told_address"]

_ELSEWHERE = ("192.0.2.1", 9)  # TEST-NET-1 (RFC 5737): choosing a route to it sends no packet
_TRIES = 100


def lan_address() -> str | None:
    """Return the address by which others on the local network reach this machine, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(_ELSEWHERE)
        address = str(probe.getsockname()[0])
        if not address.startswith("127."):
            return address
    return None


def told_address(host: str) -> str:
    """Return the address to tell others for something that listens on ``host``."""
    return (lan_address() or "127.0.0.1") if host in ("0.0.0.0", "::", "") else host


def refuse_taken(host: str, port: int, flag: str, what: str) -> None:
    """Raise ``PortTaken``, naming ``flag``, when nothing can listen on ``port``; 0 is always free."""
    if port and (reason := _refusal(host, port)):
        raise PortTaken(f"Port {port} ({what}) can't be used on {host}: {reason}. Give another with {flag}.")


def free_port(host: str, first: int, taken: set[int]) -> int:
    """Return the first free port from ``first`` upwards that is not in ``taken``; raises ``PortTaken``."""
    for port in range(first, min(first + _TRIES, 65536)):
        if port not in taken and not _refusal(host, port):
            return port
    raise PortTaken(f"None of the {_TRIES} ports from {first} is free on {host}; end what listens there.")


def port_of(url: str) -> int:
    """Return the port at the end of a url that a process said it is ready at."""
    return int(url.rstrip("/").rsplit(":", 1)[1])


def _refusal(host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # as a server would set it: a port whose connections are still closing is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.strerror or str(error)
    return None
