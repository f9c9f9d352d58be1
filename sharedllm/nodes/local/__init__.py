"""A federation on one machine: its processes, supervised; behind ``sharedllm up``, tests and benchmarks.

What must not happen here: a secret in a process's arguments or environment; a process that outlives its
supervisor; importing torch or a web framework.

Bets that rest on it: those that run on a real pipeline, b005 and b045 among them.
"""

from sharedllm.nodes.local.addresses import free_port, lan_address, port_of, told_address
from sharedllm.nodes.local.errors import AlreadyUp, ProcessFailed
from sharedllm.nodes.local.federation import COORDINATOR_PORT, PAGE_PORT, WORKER_PORT, Federation
from sharedllm.nodes.local.lock import read_note
from sharedllm.nodes.local.process import Process
from sharedllm.nodes.local.supervisor import Supervisor

__all__ = [
    "COORDINATOR_PORT",
    "PAGE_PORT",
    "WORKER_PORT",
    "AlreadyUp",
    "Federation",
    "Process",
    "ProcessFailed",
    "Supervisor",
    "free_port",
    "lan_address",
    "port_of",
    "read_note",
    "told_address",
]
