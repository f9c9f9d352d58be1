"""A ledger's lines add up to the joint log-probability that was served: to 1e-12 in fp64, exactly in fixed
point.

**fp64** (``reconcile``): fp32 logits are upcast before log-softmax, so that the residual is a few ulps of
fp64; at fp32 one ulp at |log p| of 2–4 is 2.4e-7, which is all that a residual of 3e-7 says.

**Fixed point** (``entries``): each line is an integer number of 2^-40 nat (9.1e-13), and a *remainder* line
takes up what rounding left over, so that ``evidence + prior + diversity + remainder = joint`` holds as an
identity of integers, on every machine, for ever. An entry also carries what the lines were made from (each
specialist's log-probability and log-weight), so that ``verify`` needs nothing else: it re-adds the lines,
checks that weights sum to one, that the remainder is no larger than rounding, and makes every line again.
A log holds entries as the rows of an answer's records (``receipts.records``).

*Covered*: a changed line, joint, weight or log-probability; a remainder that hides something; a specialist
left out; changes that cancel, above the rounding that ``_allowance_units`` states (1e-10 nat at |log p| ≤
30). *Not covered*: an entry forged whole, consistently (a signed log is for that); whether the numbers came
from the models named; why a specialist said what it said (an identity is not an explanation). Bet b018.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.attribution.entry import LARGEST_NATS, UNIT_NATS, Entry, verify
from sharedllm.attribution.shares import LogShares, log_shares, responsibilities
from sharedllm.errors import BadLedger

__all__ = [
    "UNIT_NATS",
    "Entry",
    "Ledger",
    "Row",
    "billionths",
    "entries",
    "evidence",
    "reconcile",
    "rows",
    "verify",
]

Amounts = tuple[int, ...]
Possible = tuple[int | None, ...]
Row = tuple[int, Possible, Possible, Amounts, Amounts, int, int, int]
"""Token, logw, logp, evidence, prior, diversity, remainder, joint: an ``Entry`` without its specialists."""


_CHUNK_ELEMENTS = 1 << 23  # of N × T × V at a time: 64 MiB in fp64


@dataclass(frozen=True)
class Ledger:
    """The fp64 ledger of T tokens: lines, the joint that was served, and how far apart they are (nats)."""

    shares: LogShares
    joint_T: Tensor

    def residuals(self) -> Tensor:
        """Give ``|sum of lines − joint|`` per token; report its maximum."""
        return (self.shares.total() - self.joint_T).abs()


def evidence(logits_NTV: Tensor, tokens_T: Tensor) -> Tensor:
    """Give ``a_NT = log p_i(x_t)`` in fp64 from logits of any precision, upcast before log-softmax.

    Works in pieces of bounded memory. Raises ``BadLedger`` when tokens and logits do not fit.
    """
    if logits_NTV.ndim != 3 or tokens_T.shape != logits_NTV.shape[1:2]:
        raise BadLedger(f"Logits {tuple(logits_NTV.shape)} do not fit {tuple(tokens_T.shape)} tokens.")
    n, t, v = logits_NTV.shape
    a_NT = torch.empty(n, t, dtype=torch.float64)
    step = max(1, _CHUNK_ELEMENTS // (n * v))
    for start in range(0, t, step):
        logits = logits_NTV[:, start : start + step].to(torch.float64)
        index = tokens_T[None, start : start + step, None].expand(n, -1, 1)
        a_NT[:, start : start + step] = logits.gather(2, index).squeeze(2) - logits.logsumexp(2)
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
    written = [Entry(specialists, *row) for row in rows(a_NT, logw_NT, joint_T, tokens_T)]
    for entry in written:
        verify(entry)
    return written


def rows(a_NT: Tensor, logw_NT: Tensor, joint_T: Tensor, tokens_T: Tensor) -> list[Row]:
    """Give what follows ``specialists`` in each of T entries, in the order of an ``Entry``'s fields.

    For whoever writes many: every row re-adds to its joint exactly, and is refused where its lines do not
    make that joint to rounding, all tokens at once; ``verify`` then looks at each. Raises as ``entries``
    does.
    """
    ledger = reconcile(a_NT, logw_NT, joint_T)
    # fp64 moves an exponent by ulps of the largest amount, so a line by ``size²`` of them
    size_T = torch.stack([x_NT.abs().masked_fill(x_NT == -torch.inf, 0) for x_NT in (a_NT, logw_NT)]).amax(
        (0, 1)
    )
    wrong_T = ledger.residuals() > 1e-11 + 1e-15 * size_T.to(torch.float64) ** 2
    if bool(wrong_T.any()):
        at = int(wrong_T.nonzero()[0])
        raise BadLedger(
            f"The joint is {float(joint_T[at])} nats for token {at}, and its specialists make "
            f"{float(ledger.shares.total()[at])}; give the joint in fp64, of the same weights."
        )
    shares, n = ledger.shares, len(a_NT)
    lines = [logw_NT, a_NT, shares.evidence_NT, shares.prior_NT]
    units_KT = _units(torch.cat([*lines, shares.diversity_T[None], ledger.joint_T[None]]))
    added_T = units_KT[2 * n : -1].sum(0)
    columns = torch.cat([units_KT, (units_KT[-1] - added_T)[None]]).T.tolist()
    possible = _possible(logw_NT), _possible(a_NT)
    return [
        (
            token,
            tuple(x[:n]) if possible[0] is None else _where(x[:n], possible[0][at]),
            tuple(x[n : 2 * n]) if possible[1] is None else _where(x[n : 2 * n], possible[1][at]),
            tuple(x[2 * n : 3 * n]),
            tuple(x[3 * n : -3]),
            x[-3],
            x[-1],
            x[-2],
        )
        for at, (token, x) in enumerate(zip(tokens_T.tolist(), columns, strict=True))
    ]


def billionths(a_NT: Tensor, logw_NT: Tensor) -> list[tuple[int, ...]]:
    """Give each token's responsibilities in whole billionths that add up to 1,000,000,000 exactly.

    What rounding leaves over goes to the largest. Raises ``BadLedger`` as ``responsibilities`` does.
    """
    r_TN = (responsibilities(a_NT, logw_NT).T * 1e9).round().to(torch.int64)
    largest_T1 = r_TN.argmax(1, keepdim=True)
    r_TN.scatter_add_(1, largest_T1, 1_000_000_000 - r_TN.sum(1, keepdim=True))
    return [tuple(row) for row in r_TN.tolist()]


def _units(x_KT: Tensor) -> Tensor:
    """Round to integer units; −inf becomes 0, which ``_where`` then takes for None."""
    x_KT = x_KT.to(torch.float64).masked_fill(x_KT == -torch.inf, 0.0)
    if bool((x_KT.abs() > LARGEST_NATS).any()):
        raise BadLedger(f"A line is larger than {LARGEST_NATS:.0f} nats; no probability of a real model is.")
    return (x_KT / UNIT_NATS).round().to(torch.int64)


def _possible(x_NT: Tensor) -> list[list[bool]] | None:
    """Which amounts are above −inf, token by token; None if all are."""
    finite_NT = x_NT > -torch.inf
    flags: list[list[bool]] = finite_NT.T.tolist()
    return None if bool(finite_NT.all()) else flags


def _where(values: list[int], flags: list[bool]) -> Possible:
    return tuple(value if flag else None for value, flag in zip(values, flags, strict=True))
