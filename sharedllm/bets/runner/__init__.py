"""Running a bet: strict parameters in, one child process under limits, a judged result and an executed
notebook out.

What must not happen here: deciding. A run leaves its result under ``build/runs``; ``ledger.decide`` takes it
from there. Only ``child`` imports papermill, and only in the child process. All bets rest on this room.
"""

from __future__ import annotations

from sharedllm.bets.runner.execution import DEFAULT_OUTPUT_LIMIT_BYTES, run
from sharedllm.bets.runner.notebook import check_notebook, read_notebook, recorded
from sharedllm.bets.runner.recording import bars, checkpoint, intervals, progress, record

__all__ = [
    "DEFAULT_OUTPUT_LIMIT_BYTES",
    "bars",
    "check_notebook",
    "checkpoint",
    "intervals",
    "progress",
    "read_notebook",
    "record",
    "recorded",
    "run",
]
