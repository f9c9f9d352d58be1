"""Connections to put links on."""

from __future__ import annotations

import socket
import threading

from sharedllm.nodes.identity import Identity, client_context, server_context

Ends = tuple[socket.socket, socket.socket]


def encrypted(nodes: tuple[Identity, Identity]) -> tuple[socket.socket, socket.socket]:
    """Both ends of a TLS connection, the server's first."""
    worker, primary = nodes
    server = server_context(worker, client_certificates="required")
    raw = socket.socketpair()
    served: list[socket.socket] = []
    accepting = threading.Thread(target=lambda: served.append(server.wrap_socket(raw[0], server_side=True)))
    accepting.start()
    client = client_context(primary).wrap_socket(raw[1])
    accepting.join(10)
    return served[0], client
