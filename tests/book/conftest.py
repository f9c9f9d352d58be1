"""A made-up catalogue with every verdict in it, and the book built from it once per session.

It suffices because the book reads nothing but ``bet.toml``, results, ledger and notices, and these are
written through the same dataclasses that real runs use.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from sharedllm.bets.criteria import judge
from sharedllm.bets.ledger import Ledger
from sharedllm.bets.registration import Catalogue, load_bet
from sharedllm.bets.result import Result, parse_result, write_result
from sharedllm.cli.book import app
from sharedllm.store import sha256_of

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "c0ffee" + "0" * 34

MADE_UP = Path(__file__).with_name("made_up")
BET_TOML = (MADE_UP / "bet.toml.template").read_text(encoding="utf-8")
SERIES: list[dict[str, Any]] = json.loads((MADE_UP / "series.json").read_text(encoding="utf-8"))

HOSTILE = """<script>alert(1)</script> **b** [a](javascript:alert(2)) {math}`x` {{ y }} "quoted" & <img src=x>

```{raw} html
<script>alert(3)</script>
```

# A heading

</div></td><h1 onclick="alert(4)">big</h1> ![i](http://tracker.example/i.png) +++ %%% :::
<!-- generated: tally -->
"""

METRICS = {
    "STRICT PASS": {"ratio": 1.084, "e_value": 41.7, "own_minus_random_nats": 0.12},
    "LENIENT PASS": {"ratio": 1.21, "e_value": 3.2, "own_minus_random_nats": 0.12},
    "FAIL": {"ratio": 1.6, "e_value": 0.4, "own_minus_random_nats": 0.12},
    "CATASTROPHIC": {"ratio": 520.0, "e_value": 0.0001, "own_minus_random_nats": 0.12},
    "VOID": {"ratio": 1.084, "e_value": 41.7, "own_minus_random_nats": -0.01},
}

BETS = (
    (
        "b004",
        "mixture-combiner",
        "foundations",
        "Mixing specialists has a floor",
        ("STRICT PASS", "LENIENT PASS"),
    ),
    ("b018", "glass-box", "transparency", "A token’s ledger closes", ("STRICT PASS", "STRICT PASS")),
    ("b037", "norm-only", "adapters", "Norm gains against full fine-tuning", ("FAIL", None)),
    ("b038", "expert-collapse", "wire", "Sixteen experts become one", ("CATASTROPHIC", None)),
    ("b061", "matrix", "adapters", "Own adapter, own text", ("VOID", "FAIL")),
)


def write_bet(catalogue: Path, id: str, slug: str, chapter: str, title: str, claim: str) -> Path:
    """Write one bet folder with an empty notebook."""
    folder = catalogue / chapter / f"{id}-{slug}"
    (folder / "results").mkdir(parents=True)
    quoted = {"claim": json.dumps(claim), "title": json.dumps(title)}
    (folder / "bet.toml").write_text(BET_TOML.format(id=id, chapter=chapter, **quoted), encoding="utf-8")
    notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "bet.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return folder


def made_up_result(folder: Path, regime: str, metrics: dict[str, float], **changes: Any) -> Result:
    """Judge made-up metrics and wrap them in a complete result."""
    bet = load_bet(folder)
    judgement = judge(bet.registration, metrics)
    rules = {
        key: [vars(o) | {"per_seed": {}} for o in getattr(judgement, key)] for key in ("controls", "criteria")
    }
    document = {
        "schema": "sharedllm/result-1",
        "bet": bet.id,
        "regime": regime,
        "tier": "full",
        "fate": "canonical",
        "verdict": str(judgement.verdict),
        "registration_sha256": bet.registration.sha256,
        "ledger_line": 1,
        "deviations": [],
        "code": {
            "commit": COMMIT,
            "dirty": False,
            "package_sha256": "a" * 64,
            "notebook_sha256": "b" * 64,
            "executed_sha256": "c" * 64,
        },
        "environment": {"lock_sha256": "d" * 64, "python": "3.11.9", "torch": "2.13.0", "os": "Linux 6.1"},
        "hardware": {"cpu": "a made-up CPU", "cores": 2, "memory_bytes": 24 << 30, "accelerator": None},
        "parameters": dict(bet.registration.plan(regime).parameters),
        "timing": {
            "started_utc": "2030-01-31T12:00:00Z",
            "wall_s": 754.2,
            "limit_s": 600.0,
            "peak_rss_bytes": 3 << 29,
            "cells_s": [1.0],
            "checkpoints_computed": 3,
            "checkpoints_reused": 0,
        },
        "metrics": dict(metrics),
        "per_seed": {"ratio": [1.08, 1.09, 1.082]},
        **rules,
        "series": SERIES,
        "notes": ["Three seeds, one made-up machine."],
    }
    return parse_result(document | changes)


def write_catalogue(root: Path) -> Catalogue:
    """Write a checkout with book/ and a catalogue of five bets that show every verdict."""
    shutil.copytree(ROOT / "book", root / "book")
    catalogue = Catalogue(root / "catalogue")
    (catalogue.root / "schema").mkdir(parents=True)
    shutil.copyfile(ROOT / "catalogue" / "seed.toml", catalogue.root / "seed.toml")
    ledger = Ledger(catalogue.ledger)
    for id, slug, chapter, title, verdicts in BETS:
        folder = write_bet(catalogue.root, id, slug, chapter, title, f"The made-up claim of {id} holds.")
        sha256 = load_bet(folder).registration.sha256
        ledger.append("registered", id, sha256, COMMIT)
        for regime, verdict in zip(("toy", "135m"), verdicts, strict=True):
            if verdict is None:
                continue
            result = made_up_result(folder, regime, METRICS[verdict])
            write_result(folder / "results" / f"{regime}.json", result)
            (folder / "results" / f"{regime}.ipynb").write_bytes((folder / "bet.ipynb").read_bytes())
            file_sha256 = sha256_of((folder / "results" / f"{regime}.json").read_bytes())
            more = {"regime": regime, "verdict": verdict, "result_sha256": file_sha256}
            ledger.append("decided", id, sha256, COMMIT, **more)
    sha256 = load_bet(catalogue.root / "transparency" / "b018-glass-box").registration.sha256
    ledger.append("retracted", "b018", sha256, COMMIT, regime="toy", reason="scope-overstated", by="b062")
    notice = catalogue.root / "transparency" / "b018-glass-box" / "NOTICE.md"
    notice.write_text(
        "Retracted in the regime toy: the numbers stand, the words claimed more.\n", encoding="utf-8"
    )
    return catalogue


def write_hostile(catalogue: Path, ledger: Ledger) -> None:
    """Add a bet whose every text tries to become markup."""
    attack = HOSTILE.replace("\n", " ")
    folder = write_bet(catalogue, "b099", "hostile", "open", HOSTILE.splitlines()[0], attack)
    toml = folder / "bet.toml"
    text = toml.read_text(encoding="utf-8").replace(
        '"Everything outside this made-up example."', json.dumps(HOSTILE)
    )
    toml.write_text(text.replace('"The ratio is 1.0, always."', json.dumps(HOSTILE)), encoding="utf-8")
    series = [SERIES[0] | {"title": attack, "alt": attack, "takeaway": attack, "x": [attack, "b", "c", "d"]}]
    result = made_up_result(
        folder, "toy", METRICS["FAIL"], series=series, notes=[HOSTILE], fate="exploratory"
    )
    write_result(folder / "results" / "toy.json", result)
    (folder / "results" / "toy.ipynb").write_bytes((folder / "bet.ipynb").read_bytes())
    (folder / "NOTICE.md").write_text(HOSTILE, encoding="utf-8")
    ledger.append("registered", "b099", load_bet(folder).registration.sha256, COMMIT)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The HTML of a made-up checkout with a hostile bet in it, built by the real command."""
    root = tmp_path_factory.mktemp("built")
    catalogue = write_catalogue(root)
    write_hostile(catalogue.root, Ledger(catalogue.ledger))
    ran = CliRunner().invoke(app, ["--catalogue", str(root)])
    assert ran.exit_code == 0, ran.output
    return root / "build" / "book" / "_build" / "html"


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The made-up checkout, written once."""
    return write_catalogue(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def making() -> SimpleNamespace:
    """The writers above, for tests that need a catalogue of their own."""
    return SimpleNamespace(
        bet=write_bet, result=made_up_result, series=SERIES, metrics=METRICS, commit=COMMIT
    )
