"""A rehearsal: a whole ring in one process, whose workers are slowed and killed at a chosen step.

Everything between the nodes is real: node keys, an authority, tickets, TLS 1.3 on loopback, proxies, engines
and the primary's loop. Only the coordinator is a list of plans, and the workers share one process, so that a
test or a notebook decides what happens when, and reads every logit's bits.

What must not happen here: anything that serves people. ``faults`` are loops that are broken on purpose, so
that a bet can show that it would notice.
``overhead`` times a decoding mixture with and without its audit, without a ring.
Bets that rest on it: b005 (handoff), b017 (audit overhead), b045 (throttle).
"""

from sharedllm.nodes.rehearsal.faults import Forgetful, Impatient, Mixing, Stale, Swapping
from sharedllm.nodes.rehearsal.overhead import Block, Choir, Paired, compare, median_interval, round_ratio
from sharedllm.nodes.rehearsal.plans import Plan
from sharedllm.nodes.rehearsal.requests import Heard, Request
from sharedllm.nodes.rehearsal.ring import Recording, Rehearsal, refusal
from sharedllm.nodes.rehearsal.shares import Share, jitter, ramp, steady
from sharedllm.nodes.rehearsal.workers import Worker

__all__ = [
    "Block",
    "Choir",
    "Forgetful",
    "Heard",
    "Impatient",
    "Mixing",
    "Paired",
    "Plan",
    "Recording",
    "Rehearsal",
    "Request",
    "Share",
    "Stale",
    "Swapping",
    "Worker",
    "compare",
    "jitter",
    "median_interval",
    "ramp",
    "refusal",
    "round_ratio",
    "steady",
]
