"""What a notebook must look like before it is registered or run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharedllm.bets.runner import check_notebook
from sharedllm.bets.runner.notebook import slim
from sharedllm.bets.runner.recording import RECORD_MIME
from sharedllm.errors import BadBet, RunFailed

Edit = Callable[[dict[str, Any]], object]


def edited(lab: Any, edit: Edit) -> None:
    path: Path = lab.folder / "bet.ipynb"
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    edit(notebook)
    path.write_text(json.dumps(notebook))


def replace(cell: int, old: str, new: str) -> Edit:
    def edit(notebook: dict[str, Any]) -> None:
        source = notebook["cells"][cell]["source"]
        assert old in source
        notebook["cells"][cell]["source"] = source.replace(old, new)

    return edit


def test_a_scaffolded_notebook_is_fine(lab: Any) -> None:
    check_notebook(lab.bet)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda n: n["cells"][1].update(execution_count=1), "cell 2 has outputs or a count"),
        (lambda n: n["cells"][2]["outputs"].append({}), "cell 3 has outputs"),
        (lambda n: n.update(nbformat_minor=4), r"nbformat 4\.5"),
        (lambda n: n["metadata"].update(kernelspec={"name": "my-env"}), "named python3"),
        (lambda n: n["cells"][2].update(id="parameters"), "an id of its own"),
        (lambda n: n["cells"][1]["metadata"].update(tags=[]), "0 cells tagged 'parameters'"),
        (lambda n: n["cells"][2]["metadata"].update(tags=["parameters"]), "2 cells tagged"),
        (replace(2, "import random", "import random\n" + "a = 1\n" * 121), r"at most 120"),
        (replace(1, "tokens: int", "toknes: int"), "no registered parameter 'toknes'. Did you mean 'tokens'"),
        (replace(1, 'tier: str = "full"  # full or smoke\n', ""), "lacks tier"),
        (replace(1, "seeds: list[int] = [0, 1, 2]  # seeds", ""), "lacks seeds"),
        (replace(1, "1000", "1001"), "tokens is 1001 in its parameters cell and 1000 as registered"),
        (replace(1, "1000", "1000.0"), "must be of type int"),
        (replace(1, "# tokens", "# how many"), "needs its unit: # tokens"),
        (replace(1, "1000", "10 ** 3"), "must be a literal"),
        (replace(1, "tokens: int = 1000", "import os"), "must only hold name: type = value"),
        (replace(1, '"toy"', '"tyo"'), "no regime 'tyo'"),
        (replace(1, "tokens: int = 1000", "tokens: int = ("), "is no Python"),
        (replace(3, "record(", "print("), "must call record"),
        (replace(2, "import random", "import random\nrecord({})"), "and no other, must call record"),
    ],
)
def test_a_broken_rule_is_one_sentence(lab: Any, edit: Edit, sentence: str) -> None:
    edited(lab, edit)
    with pytest.raises(BadBet, match=sentence):
        check_notebook(lab.bet)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"cells": [{}]}', b'{"cells": 3}'])
def test_what_is_no_notebook_is_said_to_be_none(lab: Any, data: bytes) -> None:
    (lab.folder / "bet.ipynb").write_bytes(data)
    with pytest.raises(BadBet, match="is not a notebook"):
        check_notebook(lab.bet)


def executed(*sizes: int) -> dict[str, Any]:
    record = {"output_type": "display_data", "data": {RECORD_MIME: {"metrics": {"a" * 50_000: 1}}}}
    outputs = [{"output_type": "stream", "name": "stdout", "text": "x" * size} for size in sizes]
    return {"cells": [{"cell_type": "code", "source": "", "outputs": [*outputs, record]}], "metadata": {}}


def test_a_small_executed_notebook_keeps_every_output() -> None:
    _, lost = slim(executed(10_000, 100_000))
    assert lost == []


def test_the_largest_output_gives_way_first_and_the_notebook_says_so() -> None:
    data, lost = slim(executed(10_000, 190_000, 100_000))
    assert len(data) <= 200_000
    assert len(lost) == 1
    assert lost[0] in data.decode()
    assert "x" * 100_000 in data.decode()


def test_a_record_never_gives_way() -> None:
    data, _ = slim(executed(1_000_000))
    assert "a" * 50_000 in data.decode()


def test_a_notebook_too_large_without_outputs_is_refused() -> None:
    notebook = executed()
    notebook["cells"][0]["source"] = "#" * 200_000
    with pytest.raises(RunFailed, match="without its outputs"):
        slim(notebook)
