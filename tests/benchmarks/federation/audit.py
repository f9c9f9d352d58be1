"""What a log costs: appends with and without sync, proofs in bytes and time, a token's call, and the whole.

The last lines are those of bet b017 in small: blocks of a decoding mixture with and without its audit, in
turns, all that the audit does charged to its tokens. ``without sync`` is for comparison alone; no log of ours
is written so.

*Covered*: the disk under the store's folder, one answer at a time. *Not covered*: a machine that other
programs keep busy, a ring of workers.
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import store
from sharedllm.attribution.log import Log
from sharedllm.attribution.receipts import verify
from sharedllm.model import join_weights
from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.primary.audit import AuditHead, Auditor
from sharedllm.nodes.rehearsal import Choir, compare, median_interval

__all__ = ["measure"]

_ENTRY_BYTES = 512
_BATCHES = (1, 16, 256)
_SINGERS = 4
_ASKED = 1.006


def measure(quick: bool = False) -> list[str]:
    """Lines of a table: appends, proofs, a token's call and its receipt, and the paired overhead."""
    with tempfile.TemporaryDirectory(prefix="audit-", dir=store.home()) as folder:
        lines = _appends(Path(folder), 20 if quick else 300)
        lines += _proofs(Path(folder), 5_000 if quick else 100_000)
        lines += _calls(Path(folder), 300 if quick else 1000)
        for name, rounds, tokens, rest in [("toy", 3, 64, 16)] if quick else _FULL:
            lines += _overhead(Path(folder), name, rounds, tokens, rest)
    return lines


_FULL = [("toy", 24, 256, 32), ("smollm2-135m", 10, 40, 8)]


def _appends(folder: Path, batches: int) -> list[str]:
    """Entries per second by size of batch; each batch is one write, one signature and one sync."""
    lines = []
    for size in _BATCHES:
        batch = [os.urandom(_ENTRY_BYTES) for _ in range(size)]
        rates = []
        for label in ("sync", "free"):
            log = Log(folder / f"{label}{size}", "benchmark", Ed25519PrivateKey.generate())
            with mock.patch("os.fsync", os.fsync if label == "sync" else _nothing):
                rates.append(size / _median_s(functools.partial(log.append, batch), batches))
            log.close()
        lines.append(
            f"append in batches of {size:3} entries of {_ENTRY_BYTES} bytes: {rates[0]:9,.0f} entries/s with "
            f"sync, {rates[1]:9,.0f} without"
        )
    return lines


def _proofs(folder: Path, entries: int) -> list[str]:
    """Bytes of a proof, and the times to make and to verify one."""
    log = Log(folder / "proofs", "benchmark", Ed25519PrivateKey.generate())
    for first in range(0, entries, 5_000):
        log.append([f"{i}".encode() for i in range(first, first + 5_000)])
    asked = np.random.default_rng(0).integers(entries, size=200).tolist()
    proofs = [log.prove(i) for i in asked]
    made_s = _median_s(lambda: log.prove(asked[0]), 50)
    checked_s = _median_s(lambda: proofs[0].verify(f"{asked[0]}".encode(), log.key), 50)
    hashes, longest = max(len(proof.path) for proof in proofs), max(len(str(proof)) for proof in proofs)
    old = log.consistency(entries // 3)
    began_s = time.perf_counter()
    log.close()
    again = Log(folder / "proofs", "benchmark", log._private)
    opened_s = time.perf_counter() - began_s
    again.close()
    return [
        f"inclusion in {entries:,} entries: {32 * hashes} bytes of hashes (bound "
        f"{32 * (entries - 1).bit_length()}), {longest:,} as text with checkpoint; "
        f"made in {1e3 * made_s:.2f} ms, verified in {1e3 * checked_s:.2f} ms",
        f"consistency with {entries // 3:,} entries: {32 * len(old)} bytes; log opened in "
        f"{1e3 * opened_s:.0f} ms",
    ]


def _calls(folder: Path, tokens: int) -> list[str]:
    """What a token's path pays, and the receipt of an answer."""
    auditor = Auditor(folder / "calls", NodeKey.load_or_create(folder / "node.key"))
    names = tuple(f"s{i}" for i in range(_SINGERS))
    logp_NV = torch.randn(_SINGERS, 49_152, dtype=torch.float64).log_softmax(-1)
    logw_N = torch.full((_SINGERS,), 1 / _SINGERS, dtype=torch.float64).log()
    m_V = (logp_NV + logw_N[:, None]).logsumexp(0)
    calls_us = []
    tape = auditor.begin(AuditHead("calls", None, "choir", names, names, "uniform", (1, 2, 3)))
    for token in range(tokens):
        a_N, joint = logp_NV[:, token], m_V[token]
        began_s = time.perf_counter()
        tape.token(token, a_N, logw_N, joint)
        calls_us.append(1e6 * (time.perf_counter() - began_s))
    ended_s = time.perf_counter()
    tape.end("length")
    receipt = auditor.receipt("calls", 60.0)
    logged_s, cpu_s = time.perf_counter() - ended_s, auditor.cpu_s
    assert receipt is not None
    checked_s = _median_s(lambda: verify(receipt), 5)
    auditor.close()
    p50, p99 = np.quantile(calls_us, [0.5, 0.99])
    return [
        f"a token's call, {_SINGERS} specialists: p50 {p50:.1f} µs, p99 {p99:.1f} µs; the audit's own thread "
        f"{1e6 * cpu_s / tokens:.0f} µs per token",
        f"receipt of {tokens:,} tokens: {len(receipt):,} bytes, {1e3 * logged_s:.0f} ms after the last "
        f"token, verified in {1e3 * checked_s:.0f} ms",
    ]


def _overhead(folder: Path, name: str, rounds: int, tokens: int, rest: int) -> list[str]:
    """The paired ratio of an audited token's time, deferred and naive."""
    model = store.load(name).model.eval().requires_grad_(False)
    join_weights(model)
    choir = Choir(model, _SINGERS, 0.05, range(300, 348), tokens + rest)
    paired = compare(choir, folder / name, rounds=rounds, naive_every=3, tokens=tokens, rest=rest, seed=0)
    lines = []
    arms = [
        ("deferred", paired.ratios(), f"asked ≤ {_ASKED}"),
        ("naive", paired.naive_ratios(), "must be above"),
    ]
    for label, ratios, asked in [*arms, ("plain again", paired.null_ratios(), "1, but for noise")]:
        median, low, high = median_interval(ratios)
        lines.append(f"{name:13} {label:11} {median:.4f} [{low:.4f}, {high:.4f}]  {asked}")
    ms = [np.quantile(paired.token_ms(arm), [0.5, 0.99]) for arm in (0, 1)]
    lines.append(
        f"{name:13} ms per token p50 {ms[0][0]:.2f} → {ms[1][0]:.2f}, p99 {ms[0][1]:.2f} → {ms[1][1]:.2f}; "
        f"{paired.proved:,} of {2 * rounds * tokens:,} tokens proved"
    )
    return lines


def _median_s(act: Callable[[], object], times: int) -> float:
    taken_s = []
    for _ in range(times):
        began_s = time.perf_counter()
        act()
        taken_s.append(time.perf_counter() - began_s)
    return float(np.median(taken_s))


def _nothing(handle: int) -> None:
    """A sync that does not."""
