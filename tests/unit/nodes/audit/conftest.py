"""An auditor of its own, and answers of a few tokens for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.primary.audit import AuditHead, Auditor, Tape


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], Auditor]]:
    """Opens auditors of the same log, one after the other; collects so often that no test waits."""
    key = NodeKey.load_or_create(tmp_path / "node.key")
    auditors: list[Auditor] = []

    def open_() -> Auditor:
        auditors.append(Auditor(tmp_path / "audit", key, collect_s=0.01))
        return auditors[-1]

    yield open_
    for auditor in auditors:
        auditor.close()


def head(request_id: str, specialists: tuple[str, ...] = ("a", "b"), **more: object) -> AuditHead:
    """A head for a request of three prompt tokens."""
    ids = tuple(f"{i:064x}" for i in range(len(specialists)))
    fields = {"client_key": None, "model": "mixture", "rule": "uniform", "prompt": (1, 2, 3), **more}
    return AuditHead(request_id, specialists=specialists, ids=ids, **fields)  # type: ignore[arg-type]


def say(tape: Tape, tokens: int, dtype: torch.dtype = torch.float64) -> None:
    """Note tokens 0, 1, …"""
    draw = torch.Generator().manual_seed(0)
    for token in range(tokens):
        a_N = -9 * torch.rand(len(tape.head.specialists), generator=draw, dtype=dtype)
        logw_N = torch.rand(len(a_N), generator=draw, dtype=dtype).log_softmax(0)
        tape.token(token, a_N, logw_N, (a_N + logw_N).logsumexp(0))
