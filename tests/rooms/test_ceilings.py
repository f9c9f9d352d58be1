"""The ceilings of the house: no file, function or folder grows past what one person can hold in mind."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 50
MAX_MODULES_PER_FOLDER = 12
NAMES_THAT_SAY_NOTHING = {"utils", "common", "helpers", "misc"}

SOURCES = sorted(
    path
    for folder in ("sharedllm", "tests", "book")
    for suffix in ("*.py", "*.js", "*.css")
    for path in (ROOT / folder).rglob(suffix)
)


def test_there_are_sources_to_measure() -> None:
    assert len(SOURCES) > 10


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_stays_under_the_ceiling(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.suffix == ".py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_functions_stay_under_the_ceiling(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    too_long = {
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not too_long


def test_a_folder_holds_few_modules() -> None:
    crowded = {}
    for folder in {path.parent for path in SOURCES}:
        modules = [p for p in SOURCES if p.parent == folder and p.name != "__init__.py"]
        if len(modules) > MAX_MODULES_PER_FOLDER:
            crowded[str(folder.relative_to(ROOT))] = len(modules)
    assert not crowded


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [
        p for p in SOURCES if p.stem in NAMES_THAT_SAY_NOTHING or p.parent.name in NAMES_THAT_SAY_NOTHING
    ]
