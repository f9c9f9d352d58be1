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

__all__ = ["recall", "remember"]

_FILE_BYTES = 16 * 1024 * 1024
_SEEDS = 256


def remember(path: Path, nodes: Mapping[str, Lease]) -> None:
    """Write who is here now. Raises ``WriteFailed``."""
    rows = {id: {**json.loads(lease.to_bytes()), "role": lease.role} for id, lease in sorted(nodes.items())}
    write_public(path, json.dumps({"nodes": rows}, indent=1).encode())


def recall(path: Path) -> list[Contact]:
    """Where those who were here gossip; none if the file is missing or damaged."""
    try:
        if path.stat().st_size > _FILE_BYTES:
            return []
        rows: dict[str, Any] = json.loads(path.read_bytes())["nodes"]
        found = [(id, Endpoint("lan", row["host"], row["port"])) for id, row in list(rows.items())[:_SEEDS]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, DialFailed):
        return []
    return [Contact(id, place.host, place.port) for id, place in found if is_node_id(id)]
