"""A worker: one open port behind which an engine computes layers for whoever holds a ticket.

Two processes. The parent holds the port, the certificate and the lease, and never imports torch; the child is
the engine, on a Unix socket that only the parent reaches, started again when it dies and ended with the
parent. What must not happen here: a byte to the engine before its caller is proven.

Bets that rest on it: b005 (handoff), b045 (throttle).
"""

from sharedllm.nodes.worker.agent import serve
from sharedllm.nodes.worker.settings import WorkerSettings

__all__ = ["WorkerSettings", "serve"]
