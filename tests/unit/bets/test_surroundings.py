"""A published notebook says nothing of the machine it ran on but what provenance says on purpose."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sharedllm.bets.registration import Catalogue
from sharedllm.bets.runner.surroundings import anonymous


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (lambda root: Path(sys.prefix) / "lib", "<python>/lib"),
        (lambda root: root / "repository" / "sharedllm", "<repository>/sharedllm"),
        (lambda root: root / "run" / "executed.ipynb", "<run>/executed.ipynb"),
    ],
)
def test_a_folder_of_the_machine_is_named_by_its_role(place, name: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    catalogue = Catalogue(tmp_path / "repository" / "catalogue")
    notebook = {"cells": [{"outputs": [{"text": f"{place(tmp_path)}: a warning"}]}]}
    clean = json.dumps(anonymous(notebook, catalogue, tmp_path / "run"))
    assert name in clean
    assert str(place(tmp_path)) not in clean
