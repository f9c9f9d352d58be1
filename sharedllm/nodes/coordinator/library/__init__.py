"""The federation's shelf: signed manifests and their blobs, so that a node gets what it lacks by its hash.

A manifest is believed because of its signature and a blob because of its hash; the coordinator only carries
them. What is on the shelf was announced first, so every length is known before a byte is read.

What must not happen here: torch; keeping a byte that no announced manifest names; a body without an end.

Bets that rest on it: none.
"""

from __future__ import annotations

from sharedllm.nodes.coordinator.library.routes import UPLOADS, library_routes
from sharedllm.nodes.coordinator.library.shelf import NotOnShelf, Shelf, ShelfRefused

__all__ = ["UPLOADS", "NotOnShelf", "Shelf", "ShelfRefused", "library_routes"]
