"""Where a node may be reached: on the LAN, on the WAN, or through a relay; as a stranger may have said it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

from sharedllm.nodes.errors import DialFailed
from sharedllm.nodes.identity import is_node_id

__all__ = ["Endpoint", "in_order"]

KINDS = ("lan", "wan", "relay")
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")
_HOST_CHARACTERS = 253
_FIELDS = {"kind", "host", "port", "relay"}


@dataclass(frozen=True)
class Endpoint:
    """One candidate address; ``relay`` is the id of the node that relays, for that kind only.

    Raises ``DialFailed`` for anything that is no address.
    """

    kind: Literal["lan", "wan", "relay"]
    host: str
    port: int
    relay: str | None = None

    def __post_init__(self) -> None:
        """Check every field: hosts reach system calls and log lines."""
        if self.kind not in KINDS:
            raise DialFailed(f"An address is of kind {self.kind!r:.20}; expected one of {', '.join(KINDS)}.")
        if not _is_host(self.host):
            raise DialFailed("An address has a host that is neither an IP address nor a host name.")
        if not isinstance(self.port, int) or isinstance(self.port, bool) or not 0 < self.port < 1 << 16:
            raise DialFailed("An address has a port that is no number from 1 to 65535.")
        if (self.kind == "relay") != is_node_id(self.relay) or (
            self.kind != "relay" and self.relay is not None
        ):
            raise DialFailed(
                "An address must name the relaying node by its 32 hex digits if it is a relay's, only then."
            )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind} {host}:{self.port}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as it travels in reports and pipelines."""
        return {"kind": self.kind, "host": self.host, "port": self.port, "relay": self.relay}

    @classmethod
    def from_dict(cls, data: object) -> Endpoint:
        """The address in JSON form; strict, as it may come from anyone.

        Raises ``DialFailed`` for missing, unknown or mistyped fields.
        """
        if not isinstance(data, dict) or not _FIELDS - {"relay"} <= set(data) <= _FIELDS:
            raise DialFailed(f"An address must have exactly the fields {', '.join(sorted(_FIELDS))}.")
        kind = cast(Literal["lan", "wan", "relay"], data["kind"])
        return cls(kind=kind, host=data["host"], port=data["port"], relay=data.get("relay"))


def in_order(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """The candidates as they are tried: LAN, then WAN, then relays; otherwise as given, and each once."""
    return sorted(dict.fromkeys(endpoints), key=lambda endpoint: KINDS.index(endpoint.kind))


def _is_host(host: object) -> bool:
    if not isinstance(host, str) or not 0 < len(host) <= _HOST_CHARACTERS:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return "%" not in host
