"""Joint training by real processes: they meet over TCP, exchange updates over gloo, and outlive each other.

The launcher hosts a meeting place and trains nothing. Its workers agree there on generations of the group; in
a group they exchange updates and take the same outer step, which keeps their states equal bit for bit.

What must not happen here: a wait without end, a step taken twice, a state taken on the word of f workers or
fewer, a process that outlives its launcher. Encryption is not done here: keep the meeting place on loopback
or in a private network.
"""

from __future__ import annotations

from sharedllm.training.outer.processes.churn import Churn
from sharedllm.training.outer.processes.errors import CannotGoOn
from sharedllm.training.outer.processes.launch import Crew, Event
from sharedllm.training.outer.processes.liar import check_attack
from sharedllm.training.outer.processes.meeting import Meeting, enter, host, listen
from sharedllm.training.outer.processes.settings import Settings, fewest
from sharedllm.training.outer.processes.state import State
from sharedllm.training.outer.processes.worker import Job, stored_state, work

__all__ = [
    "CannotGoOn",
    "Churn",
    "Crew",
    "Event",
    "Job",
    "Meeting",
    "Settings",
    "State",
    "check_attack",
    "enter",
    "fewest",
    "host",
    "listen",
    "stored_state",
    "work",
]
