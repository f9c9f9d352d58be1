"""A new bet that passes ``check`` from its first minute: a ``bet.toml`` and a notebook to fill in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sharedllm.bets.registration import Catalogue
from sharedllm.errors import BadBet
from sharedllm.store import atomic

__all__ = ["scaffold"]

_SLUG = re.compile(r"b[0-9]{3}-[a-z0-9]+(-[a-z0-9]+)*")
_CHAPTER = re.compile(r"[a-z]+")

_TOML = """[registration]
claim = "State in one sentence what would be true of the numbers."
limit_s = 600

[registration.parameters.tokens]
type = "int"
unit = "tokens"
value = 1000
about = "Say what is counted."

[registration.parameters.seeds]
type = "list[int]"
unit = "seeds"
value = [0, 1, 2]
about = "Say what each seed changes."

[registration.regimes.toy]

[registration.smoke]
tokens = 10

[[registration.controls]]
name = "the measurement can fail"
expression = "control_difference_nats > 0"
unit = "nats"
about = "What must hold for a run to mean anything; otherwise it is VOID."

[[registration.criteria]]
level = "strict"
name = "strictly better"
expression = "difference_nats <= -0.1"
unit = "nats"
about = "What the claim says."

[[registration.criteria]]
level = "lenient"
name = "better"
expression = "difference_nats < 0"
unit = "nats"
about = "What would still be worth knowing."

[[registration.criteria]]
level = "catastrophic"
name = "harmful"
expression = "difference_nats > 1"
unit = "nats"
about = "What would make it dangerous to use."

[editorial]
id = "{id}"
title = "The outcome goes here, as a sentence"
chapter = "{chapter}"
summary = "What is measured, on what, against what."

[editorial.links]
rooms = []
bets = []
sources = []
"""

_PARAMETERS = """regime: str = "toy"  # which named set of parameter values
tier: str = "full"  # full or smoke
tokens: int = 1000  # tokens
seeds: list[int] = [0, 1, 2]  # seeds"""

_MEASURE = """import random
from statistics import fmean

from sharedllm.bets import Series, checkpoint, progress, record


def difference_nats(seed: int, shift_nats: float) -> float:
    draw = random.Random(seed)
    return fmean(draw.gauss(shift_nats, 0.05) for _ in range(tokens))


def cell(seed: int) -> float:
    return checkpoint("difference", {"seed": seed, "tokens": tokens}, lambda: difference_nats(seed, -0.2))


differences_nats = [cell(seed) for seed in progress(seeds, "seeds")]
control_nats = fmean(difference_nats(seed, 0.2) for seed in seeds)"""

_RECORD = """record(
    {"difference_nats": fmean(differences_nats), "control_difference_nats": control_nats},
    per_seed={"difference_nats": differences_nats},
    series=[
        Series(
            name="by-seed",
            kind="points",
            title="Difference by seed",
            takeaway="Say in one line what the figure shows.",
            alt="Say what a person who can't see it needs to know.",
            x=seeds,
            y=differences_nats,
            x_label="seed",
            y_label="difference (nats)",
        )
    ],
)"""


def scaffold(catalogue: Catalogue, chapter: str, name: str) -> Path:
    """Make ``catalogue/<chapter>/<name>`` and return it; raises ``BadBet`` for an odd or taken name."""
    if not _SLUG.fullmatch(name) or not _CHAPTER.fullmatch(chapter):
        raise BadBet(f"A bet is named like transparency b118-slow-audit, not {chapter} {name}.")
    bet_id = name.split("-")[0]
    taken = [folder.name for folder in catalogue.folders() if folder.name.split("-")[0] == bet_id]
    if taken:
        raise BadBet(f"{bet_id} is taken by {taken[0]}; new bets of ours start at b100.")
    folder = catalogue.root / chapter / name
    toml = _TOML.replace("{id}", bet_id).replace("{chapter}", chapter)
    atomic.write_bytes(folder / "bet.toml", toml.encode())
    atomic.write_bytes(folder / "bet.ipynb", json.dumps(_notebook(bet_id), indent=1).encode() + b"\n")
    return folder


def _notebook(bet_id: str) -> dict[str, Any]:
    cells = [
        _cell("claim", "markdown", f"# {bet_id}: the claim\n\nSay what is measured, and why it could fail."),
        _cell("parameters", "code", _PARAMETERS, tags=["parameters"]),
        _cell("measure", "code", _MEASURE),
        _cell("record", "code", _RECORD),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _cell(name: str, kind: str, source: str, tags: list[str] | None = None) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": kind,
        "id": name,
        "metadata": {"tags": tags} if tags else {},
        "source": source.splitlines(keepends=True),
    }
    return cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []}
