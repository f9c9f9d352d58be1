"""Who was here, in a file: whom a node asks when it starts again and the coordinator is away.

Addresses are hints and the file is this node's own; a damaged one counts as none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharedllm.nodes.errors import DialFailed
from sharedllm.nodes.gossip.leases import Lease
from sharedllm.nodes.gossip.view import Contact
from sharedllm.nodes.identity import is_node_id, write_public
from sharedllm.nodes.proxy import Endpoint

__all__ = ["names", "recall", "remember"]

_FILE_BYTES = 16 * 1024 * 1024
_SEEDS = 256


def remember(path: Path, nodes: Mapping[str, Lease]) -> None:
    """Write who is here now. Raises ``WriteFailed``."""
    rows = {id: {**json.loads(lease.to_bytes()), "role": lease.role} for id, lease in sorted(nodes.items())}
    write_public(path, json.dumps({"nodes": rows}, indent=1).encode())


def recall(path: Path) -> list[Contact]:
    """Where those who were here gossip; none if the file is missing or damaged."""
    try:
        found = [(id, Endpoint("lan", row["host"], row["port"])) for id, row in _rows(path)[:_SEEDS]]
    except (TypeError, KeyError, DialFailed):
        return []
    return [Contact(id, place.host, place.port) for id, place in found]


def names(path: Path) -> dict[str, str]:
    """What those who were here are called, by id; none if the file is missing or damaged."""
    try:
        return {id: row["name"] for id, row in _rows(path) if str.isprintable(row["name"])}
    except (TypeError, KeyError):
        return {}


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        if path.stat().st_size > _FILE_BYTES:
            return []
        nodes: dict[str, Any] = json.loads(path.read_bytes())["nodes"]
        return [(id, row) for id, row in nodes.items() if is_node_id(id)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
