"""What a bet's notebook must look like, and what is read out of an executed one."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharedllm.bets.registration import Bet, Parameter
from sharedllm.bets.registration.words import fits, known
from sharedllm.bets.runner.recording import RECORD_MIME
from sharedllm.errors import BadBet, RunFailed

__all__ = ["check_notebook", "read_notebook", "recorded", "slim"]

MAX_CODE_LINES = 120
MAX_EXECUTED_BYTES = 200_000
_TAG = "parameters"


def read_notebook(path: Path) -> dict[str, Any]:
    """Read a notebook; raises ``BadBet`` unless it is JSON with cells."""
    try:
        notebook = json.loads(path.read_bytes())
        cells = notebook["cells"]
        for cell in cells:
            if isinstance(cell["source"], list):
                cell["source"] = "".join(cell["source"])
    except FileNotFoundError:
        raise BadBet(f"{path} does not exist.") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadBet(f"{path} is not a notebook (nbformat 4.5).") from None
    return dict(notebook)


def check_notebook(bet: Bet) -> None:
    """Hold a bet's notebook to the rules; raises ``BadBet`` with the first that is broken."""
    try:
        notebook = read_notebook(bet.notebook)
        _check_form(notebook)
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        _check_parameters(code, bet)
        _check_record(code)
    except BadBet as error:
        raise BadBet(f"{bet.notebook}: {error}") from None


def _check_form(notebook: Mapping[str, Any]) -> None:
    if (notebook.get("nbformat"), notebook.get("nbformat_minor", 0) >= 5) != (4, True):
        raise BadBet("it must be of nbformat 4.5 or newer, whose cells have stable ids.")
    if notebook.get("metadata", {}).get("kernelspec", {}).get("name") != "python3":
        raise BadBet("its kernelspec must be named python3, which every Jupyter has.")
    ids = [cell.get("id") for cell in notebook["cells"]]
    if None in ids or len(set(ids)) != len(ids):
        raise BadBet("each cell needs an id of its own.")
    lines = 0
    for number, cell in enumerate(notebook["cells"], start=1):
        if cell["cell_type"] != "code":
            continue
        if cell.get("outputs") or cell.get("execution_count") is not None:
            raise BadBet(
                f"cell {number} has outputs or a count; clear them (Kernel ▸ Restart and clear outputs)."
            )
        lines += sum(1 for line in cell["source"].splitlines() if line.strip() and line.strip()[0] != "#")
    if lines > MAX_CODE_LINES:
        raise BadBet(
            f"it has {lines} lines of code; at most {MAX_CODE_LINES}: move the mechanics into the package."
        )


def _check_parameters(code: list[dict[str, Any]], bet: Bet) -> None:
    tagged = [cell for cell in code if _TAG in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise BadBet(f"it has {len(tagged)} cells tagged {_TAG!r}; it must have one.")
    source = tagged[0]["source"]
    given = _assignments(source)
    expected = [
        Parameter("regime", "str", "", next(iter(bet.registration.regimes)), ""),
        Parameter("tier", "str", "", "full", ""),
        *bet.registration.parameters,
    ]
    names = [parameter.name for parameter in expected]
    for name in given:
        known(name, names, "registered parameter")
    for parameter in expected:
        if parameter.name not in given:
            raise BadBet(
                f"its parameters cell lacks {parameter.name}, which the run passes; papermill would "
                "ignore it."
            )
        line, value = given[parameter.name]
        value = fits(value, parameter.type, f"{parameter.name} in its parameters cell")
        if parameter.name in ("regime", "tier"):
            known(
                value,
                bet.registration.regimes if parameter.name == "regime" else ("full", "smoke"),
                parameter.name,
            )
        elif value != parameter.value:
            raise BadBet(
                f"{parameter.name} is {value!r} in its parameters cell and {parameter.value!r} as registered."
            )
        comment = source.splitlines()[line - 1].partition("#")[2]
        if parameter.unit not in comment:
            raise BadBet(
                f"the line of {parameter.name} in its parameters cell needs its unit: # {parameter.unit}."
            )


def _assignments(source: str) -> dict[str, tuple[int, Any]]:
    """Read ``name: type = literal`` lines: name to line number and value."""
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise BadBet(f"its parameters cell is no Python: {error.msg}.") from None
    values: dict[str, tuple[int, Any]] = {}
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case ast.Expr(value=ast.Constant(value=str())):
                continue
            case _:
                raise BadBet(
                    f"its parameters cell must only hold name: type = value, not {ast.unparse(statement)!r}."
                )
        try:
            values[name] = (statement.end_lineno or statement.lineno, ast.literal_eval(value))
        except ValueError:
            raise BadBet(f"{name} in its parameters cell must be a literal value.") from None
    return values


def _check_record(code: list[dict[str, Any]]) -> None:
    calls = [number for number, cell in enumerate(code) if _calls_record(cell["source"])]
    if calls != [len(code) - 1]:
        raise BadBet("its last code cell, and no other, must call record(…), which reports the numbers.")


def _calls_record(source: str) -> bool:
    plain = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    try:
        tree = ast.parse(plain)
    except SyntaxError as error:
        raise BadBet(f"a cell is no Python: {error.msg}.") from None
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any((getattr(call, "attr", None) or getattr(call, "id", None)) == "record" for call in calls)


def recorded(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of an executed notebook; raises ``RunFailed`` unless there is exactly one."""
    records = [
        output["data"][RECORD_MIME]
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if RECORD_MIME in output.get("data", {})
    ]
    if len(records) != 1:
        raise RunFailed(
            f"The notebook ran and recorded {len(records)} times; its last cell must call record(…) once."
        )
    return dict(records[0])


def slim(notebook: dict[str, Any], limit_bytes: int = MAX_EXECUTED_BYTES) -> tuple[bytes, list[str]]:
    """Write an executed notebook in at most ``limit_bytes``: the largest outputs give way, never the record.

    Returns its bytes and a sentence for each cell that lost an output. Raises ``RunFailed`` if code and
    record alone are larger.
    """
    lost: list[str] = []
    places = [
        (len(json.dumps(output)), cell, index)
        for cell in notebook["cells"]
        for index, output in enumerate(cell.get("outputs", []))
        if RECORD_MIME not in output.get("data", {})
    ]
    for size_bytes, cell, index in sorted(places, key=lambda place: -place[0]):
        if len(_written(notebook)) <= limit_bytes:
            break
        sentence = f"An output of {size_bytes:,} bytes was left out of the executed notebook."
        cell["outputs"][index] = {"output_type": "stream", "name": "stderr", "text": f"[{sentence}]\n"}
        lost.append(sentence)
    data = _written(notebook)
    if len(data) > limit_bytes:
        raise RunFailed(
            f"The executed notebook has {len(data):,} bytes without its outputs; {limit_bytes:,} are "
            "kept. Print and "
            "record less."
        )
    return data, lost


def _written(notebook: Mapping[str, Any]) -> bytes:
    return (json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
