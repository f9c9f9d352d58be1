"""A ledger entry: one token's lines in fixed point, and the check that needs nothing but the entry itself.

No torch here: whoever verifies a receipt re-adds integers. What the lines mean, and what the check covers,
is said in ``ledger``, which writes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sharedllm.errors import BadLedger

__all__ = ["LARGEST_NATS", "UNIT_NATS", "Entry", "verify"]

UNIT_NATS = 2.0**-40
LARGEST_NATS = 2.0**20
"""More than any log-probability of a real model, and little enough that sums of lines fit 64 bits."""
_WEIGHTS_MISS_ONE_BY = 1e-9


@dataclass(frozen=True)
class Entry:
    """One token's fixed-point ledger; all amounts are integers in units of 2^-40 nat, None is −inf."""

    specialists: tuple[str, ...]
    token: int
    logw: tuple[int | None, ...]
    logp: tuple[int | None, ...]
    evidence: tuple[int, ...]
    prior: tuple[int, ...]
    diversity: int
    remainder: int
    joint: int


def verify(entry: Entry) -> None:
    """Re-add an entry's lines, make them again from what it carries; raises ``BadLedger`` if one is off."""
    n = len(entry.specialists)
    columns = (entry.logw, entry.logp, entry.evidence, entry.prior)
    if n < 1 or len(set(entry.specialists)) != n or any(len(column) != n for column in columns):
        raise BadLedger(
            f"An entry needs one line of each kind per specialist, each named once; {n} are named."
        )
    amounts = [*(x for column in columns for x in column), entry.diversity, entry.remainder, entry.joint]
    if any(type(x) is not int for x in amounts if x is not None) or None in entry.evidence + entry.prior:
        raise BadLedger("An entry's amounts are integers in units of 2^-40 nat; one of them is not.")
    if any(abs(x) * UNIT_NATS > LARGEST_NATS for x in amounts if x is not None):
        raise BadLedger(
            f"An amount of an entry is larger than {LARGEST_NATS:,.0f} nats; no model gives such."
        )
    total = sum(entry.evidence) + sum(entry.prior) + entry.diversity + entry.remainder
    if total != entry.joint:
        raise BadLedger(
            f"The lines add up to {total} units and the joint is {entry.joint}: {entry.joint - total} are "
            "missing. A line, the joint, or the list of specialists was changed."
        )
    _verify_lines(entry)


def _verify_lines(entry: Entry) -> None:
    logw = [_nats(x) for x in entry.logw]
    logp = [_nats(x) for x in entry.logp]
    if abs(math.fsum(math.exp(min(x, 1.0)) for x in logw) - 1.0) > _WEIGHTS_MISS_ONE_BY:
        raise BadLedger(
            "The weights of an entry's specialists do not sum to one; one was left out or changed."
        )
    both = [w + p for w, p in zip(logw, logp, strict=True)]
    top = max(both)
    if top == -math.inf:
        raise BadLedger("No specialist of an entry gives its token any probability, so it has no joint.")
    joint = top + math.log(math.fsum(math.exp(x - top) for x in both))
    r = [math.exp(x - joint) for x in both]
    allowance = _allowance_units(logw, logp, joint)
    made = {
        "joint": (joint, entry.joint),
        "diversity": (
            -math.fsum(x * (b - joint) for x, b in zip(r, both, strict=True) if x),
            entry.diversity,
        ),
        "remainder": (0.0, entry.remainder),
    }
    for i, name in enumerate(entry.specialists):
        made[f"evidence of {name}"] = (r[i] * logp[i] if r[i] else 0.0, entry.evidence[i])
        made[f"prior of {name}"] = (r[i] * logw[i] if r[i] else 0.0, entry.prior[i])
    for line, (expected_nats, units) in made.items():
        if abs(expected_nats / UNIT_NATS - units) > allowance:
            raise BadLedger(
                f"The {line} is {units} units and should be {expected_nats / UNIT_NATS:.0f} by the "
                f"entry's own log-probabilities (rounding explains {allowance:.0f}); it was changed."
            )


def _nats(units: int | None) -> float:
    return -math.inf if units is None else units * UNIT_NATS


def _allowance_units(logw: list[float], logp: list[float], joint: float) -> float:
    """Bound what rounding does to a line, in units, for amounts as large as ``size`` nats.

    Half a unit per line and input: an input off by a unit moves a responsibility by that share, so a line by
    ``size`` units each for log w and log p. fp64 moves the exponent by ulps of ``size``, so a line by
    ``size²`` of them.
    """
    size = max(abs(x) for x in [*logw, *logp, joint] if x > -math.inf)
    return 2 * len(logw) + 4 + 3 * size + 8 * size**2 * 2.0**-52 / UNIT_NATS
