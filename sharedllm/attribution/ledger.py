"""A ledger's lines add up to the joint log-probability that was served: to 1e-12 in fp64, exactly in fixed
point.

**fp64** (``reconcile``): fp32 logits are upcast before log-softmax, so that the residual is a few ulps of
fp64; at fp32 one ulp at |log p| of 2–4 is 2.4e-7, which is all that a residual of 3e-7 says.

**Fixed point** (``entries``): each line is an integer number of 2^-40 nat (9.1e-13), and a *remainder* line
takes up what rounding left over, so that ``evidence + prior + diversity + remainder = joint`` holds as an
identity of integers, on every machine, for ever. An entry also carries what the lines were made from (each
specialist's log-probability and log-weight), so that ``verify`` needs nothing else: it re-adds the lines,
checks that weights sum to one, that the remainder is no larger than rounding, and makes every line again.
``Entry.canonical`` is what a log hashes.

*Covered*: a changed line, joint, weight or log-probability; a remainder that hides something; a specialist
left out; changes that cancel, above the rounding that ``_allowance_units`` states (1e-10 nat at |log p| ≤
30). *Not covered*: an entry forged whole, consistently (a signed log is for that); whether the numbers came
from the models named; why a specialist said what it said (an identity is not an explanation). Bet b018.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sharedllm.attribution.shares import LogShares, log_shares
from sharedllm.errors import BadLedger
from sharedllm.store import canonical_json

__all__ = ["UNIT_NATS", "Entry", "Ledger", "entries", "evidence", "reconcile", "verify"]

UNIT_NATS = 2.0**-40
_LARGEST_NATS = 2.0**20  # keeps every sum of lines inside 64 bits
_WEIGHTS_MISS_ONE_BY = 1e-9
_SCHEMA = "sharedllm-ledger-entry/1"
_CHUNK_ELEMENTS = 1 << 23  # of N × T × V at a time: 64 MiB in fp64


@dataclass(frozen=True)
class Ledger:
    """The fp64 ledger of T tokens: lines, the joint that was served, and how far apart they are (nats)."""

    shares: LogShares
    joint_T: Tensor

    def residuals(self) -> Tensor:
        """Give ``|sum of lines − joint|`` per token; report its maximum."""
        return (self.shares.total() - self.joint_T).abs()


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

    def canonical(self) -> bytes:
        """Write the entry the one way that hashes are taken of (canonical JSON with a schema id)."""
        return canonical_json({"schema": _SCHEMA, **asdict(self)})

    @classmethod
    def from_canonical(cls, data: bytes) -> Entry:
        """Read what ``canonical`` wrote, byte for byte; raises ``BadLedger`` for anything else."""
        try:
            given: dict[str, Any] = json.loads(data)
            values: dict[str, Any] = {field.name: given[field.name] for field in fields(cls)}
            values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            entry = cls(**values)
            same = entry.canonical() == data
        except (ValueError, KeyError, TypeError) as error:
            raise BadLedger(f"These {len(data)} bytes are no ledger entry ({error}).") from error
        if not same:
            raise BadLedger(
                f"These {len(data)} bytes are no canonical {_SCHEMA}; take them as they were logged."
            )
        return entry


def evidence(logits_NTV: Tensor, tokens_T: Tensor) -> Tensor:
    """Give ``a_NT = log p_i(x_t)`` in fp64 from logits of any precision, upcast before log-softmax.

    Works in pieces of bounded memory. Raises ``BadLedger`` when tokens and logits do not fit.
    """
    if logits_NTV.ndim != 3 or tokens_T.shape != logits_NTV.shape[1:2]:
        raise BadLedger(f"Logits {tuple(logits_NTV.shape)} do not fit {tuple(tokens_T.shape)} tokens.")
    n, t, v = logits_NTV.shape
    a_NT = torch.empty(n, t, dtype=torch.float64)
    rows = max(1, _CHUNK_ELEMENTS // (n * v))
    for start in range(0, t, rows):
        logits = logits_NTV[:, start : start + rows].to(torch.float64)
        index = tokens_T[None, start : start + rows, None].expand(n, -1, 1)
        a_NT[:, start : start + rows] = logits.gather(2, index).squeeze(2) - logits.logsumexp(2)
    return a_NT


def reconcile(a_NT: Tensor, logw_NT: Tensor, joint_T: Tensor) -> Ledger:
    """Set the lines of T tokens against the joint log-probability that the combiner served, in fp64.

    Raises ``BadLedger`` when the joint has another length, and as ``log_shares`` does.
    """
    if joint_T.shape != a_NT.shape[1:]:
        raise BadLedger(
            f"{tuple(joint_T.shape)} joint log-probabilities do not fit lines {tuple(a_NT.shape)}."
        )
    return Ledger(log_shares(a_NT, logw_NT), joint_T.to(torch.float64))


def entries(
    a_NT: Tensor, logw_NT: Tensor, joint_T: Tensor, tokens_T: Tensor, specialists: tuple[str, ...]
) -> list[Entry]:
    """Write the fixed-point ledger of T tokens; every entry passes ``verify`` and re-adds to its joint
    exactly.

    ``specialists`` name the rows (manifest hashes, say). Raises ``BadLedger`` for names or tokens that do not
    fit, for log-probabilities beyond 2^20 nats, when the joint is not that of these lines, and as
    ``reconcile`` does.
    """
    if len(specialists) != a_NT.shape[0] or tokens_T.shape != a_NT.shape[1:]:
        raise BadLedger(
            f"{len(specialists)} names and {tuple(tokens_T.shape)} tokens do not fit lines "
            f"{tuple(a_NT.shape)}."
        )
    ledger = reconcile(a_NT, logw_NT, joint_T)
    columns = zip(
        tokens_T.tolist(),
        *(_units(x_NT) for x_NT in (logw_NT, a_NT, ledger.shares.evidence_NT, ledger.shares.prior_NT)),
        _units(ledger.shares.diversity_T[None]),
        _units(ledger.joint_T[None]),
        strict=True,
    )
    written = []
    for token, logw, logp, seen, prior, (diversity,), (joint,) in columns:
        remainder = joint - sum(seen) - sum(prior) - diversity
        entry = Entry(specialists, token, logw, logp, seen, prior, diversity, remainder, joint)
        verify(entry)
        written.append(entry)
    return written


def _units(x_NT: Tensor) -> list[tuple[Any, ...]]:
    """Round to integer units, token by token; −inf becomes None."""
    x_TN = x_NT.to(torch.float64).T
    finite_TN = x_TN > -torch.inf
    if bool((x_TN.abs()[finite_TN] > _LARGEST_NATS).any()):
        raise BadLedger(f"A line is larger than {_LARGEST_NATS:.0f} nats; no probability of a real model is.")
    rounded_TN = torch.where(finite_TN, x_TN / UNIT_NATS, 0.0).round().to(torch.int64)
    return [
        tuple(value if finite else None for value, finite in zip(values, flags, strict=True))
        for values, flags in zip(rounded_TN.tolist(), finite_TN.tolist(), strict=True)
    ]


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
