"""Expressions over recorded metrics, parsed with ``ast`` and walked by hand: nothing in a ``bet.toml`` is
executed.

The language: numbers, ``true``/``false``, metric names, ``metric.key`` and ``metric["key"]`` for tables, ``+
- * /``, comparisons (also chained), ``and or not``, and the functions ``min max mean sum len abs all any``. A
list and a number combine element by element; a function of a table works on its values.

*Covered*: attribute access, calls, subscripts, comprehensions, lambdas, f-strings, powers, huge literals,
deep nesting, endless text: each is refused when the bet is read. *Not covered*: a rule that is well formed
and meaningless.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sharedllm.errors import BadBet

__all__ = ["COMPARISONS", "FUNCTIONS", "Expression", "Unevaluable", "evaluate", "parse"]

MAX_CHARACTERS = 500
MAX_NODES = 200
MAX_DEPTH = 20
MAX_MAGNITUDE = 1e300

COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
FUNCTIONS = ("abs", "all", "any", "len", "max", "mean", "min", "sum")
_CONSTANTS = {"true": True, "false": False}


class Unevaluable(Exception):
    """A rule met a null, a division by zero or a kind of value it can't use; the message says which."""


@dataclass(frozen=True)
class Expression:
    """A parsed rule; ``names`` are the metrics it reads."""

    text: str
    tree: ast.expr
    names: tuple[str, ...]

    def holds(self, metrics: Mapping[str, Any]) -> bool:
        """Say whether the rule holds.

        Raises ``BadBet`` for a metric that was not recorded, ``Unevaluable`` for a value the rule can't use.
        """
        for name in self.names:
            if name not in metrics:
                recorded = ", ".join(sorted(metrics)) or "none"
                raise BadBet(
                    f"The rule {self.text!r} reads the metric {name!r}, which the notebook did not record. "
                    f"Recorded: {recorded}."
                )
        value = evaluate(self.tree, metrics)
        if not isinstance(value, bool):
            raise Unevaluable(f"{self.text!r} is {_kind(value)}, not true or false")
        return value


def parse(text: str) -> Expression:
    """Parse a rule; raises ``BadBet`` with what the language has instead."""
    if len(text) > MAX_CHARACTERS:
        raise BadBet(f"A rule has at most {MAX_CHARACTERS} characters; this one has {len(text)}.")
    if not text.isprintable():
        raise BadBet("A rule is one line of printable characters.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise BadBet(f"{text!r} is not an expression, such as 'max_residual <= 1e-12'.") from None
    names: set[str] = set()
    budget = [MAX_NODES]
    _check(tree, 0, budget, names)
    if not _yields_truth(tree):
        raise BadBet(f"{text!r} must compare something: it needs <=, >=, <, >, ==, !=, all(…) or any(…).")
    if not names:
        raise BadBet(f"{text!r} reads no metric, so it can't be about a run.")
    return Expression(text.strip(), tree, tuple(sorted(names)))


def _check(node: ast.AST, depth: int, budget: list[int], names: set[str]) -> None:
    """Refuse whatever is not in the language, and collect the metrics read."""
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_DEPTH:
        raise BadBet(f"A rule has at most {MAX_NODES} parts, nested at most {MAX_DEPTH} deep.")
    children: list[ast.expr] = []
    match node:
        case ast.Constant(value=value):
            _check_number(value)
        case ast.Name(id=name):
            _check_name(name)
            if name not in _CONSTANTS:
                names.add(name)
        case ast.Attribute(value=inner, attr=key):
            _check_name(key)
            children = [_table(inner)]
        case ast.Subscript(value=inner, slice=ast.Constant(value=str())):
            children = [_table(inner)]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            children = [left, right]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not(), operand=inner):
            children = [inner]
        case ast.BoolOp(values=values):
            children = values
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(o) in COMPARISONS for o in ops):
            children = [left, *others]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS and arguments:
            children = arguments
        case _:
            raise BadBet(
                f"{ast.unparse(node)[:60]!r} is not in the language of rules: numbers, metric names, "
                f'metric["key"], + - * /, comparisons, and/or/not, and {", ".join(FUNCTIONS)}.'
            )
    for child in children:
        _check(child, depth + 1, budget, names)


def _table(node: ast.expr) -> ast.expr:
    if not isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
        raise BadBet('Only a metric has keys: write metric["key"] or metric.key.')
    return node


def _check_number(value: object) -> None:
    if type(value) not in (int, float, bool) or (type(value) is not bool and abs(value) > MAX_MAGNITUDE):  # type: ignore[arg-type]
        raise BadBet(f"{str(value)[:40]!r} is not a number of ordinary size; a rule compares numbers.")


def _check_name(name: str) -> None:
    if name.startswith("_") or not name.isascii():
        raise BadBet(f"{name!r} can't name a metric.")


def _yields_truth(node: ast.expr) -> bool:
    match node:
        case ast.BoolOp(values=values):
            return all(_yields_truth(value) for value in values)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return _yields_truth(inner)
        case ast.Compare() | ast.Name() | ast.Attribute() | ast.Subscript():
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in ("all", "any")
        case _:
            return False


def evaluate(node: ast.expr, metrics: Mapping[str, Any]) -> Any:
    """Compute a checked tree over ``metrics``; raises ``Unevaluable`` or ``BadBet``."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _CONSTANTS[name] if name in _CONSTANTS else metrics[name]
        case ast.Attribute(value=inner, attr=key) | ast.Subscript(value=inner, slice=ast.Constant(value=key)):
            return _lookup(evaluate(inner, metrics), str(key), ast.unparse(inner))
        case ast.BinOp(left=left, op=op, right=right):
            return _each(_ARITHMETIC[type(op)], evaluate(left, metrics), evaluate(right, metrics))
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not _truth(evaluate(inner, metrics))
        case ast.UnaryOp(op=op, operand=inner):
            sign = -1 if isinstance(op, ast.USub) else 1
            return _each(operator.mul, sign, evaluate(inner, metrics))
        case ast.BoolOp(op=op, values=values):
            truths = [_truth(evaluate(value, metrics)) for value in values]  # no short cut: a null must show
            return all(truths) if isinstance(op, ast.And) else any(truths)
        case ast.Compare():
            return _compare(node, metrics)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _call(name, [evaluate(argument, metrics) for argument in arguments])
    raise BadBet(f"{ast.unparse(node)[:60]!r} is not in the language of rules.")


def _lookup(table: Any, key: str, where: str) -> Any:
    if not isinstance(table, Mapping):
        raise BadBet(f"The metric {where} was recorded as {_kind(table)}, so it has no key {key!r}.")
    if key not in table:
        raise BadBet(
            f"The metric {where} has no key {key!r}. Recorded: {', '.join(sorted(table)) or 'none'}."
        )
    return table[key]


def _compare(node: ast.Compare, metrics: Mapping[str, Any]) -> Any:
    values = [evaluate(part, metrics) for part in (node.left, *node.comparators)]
    steps = [
        _each(COMPARISONS[type(op)], left, right)
        for op, left, right in zip(node.ops, values, values[1:], strict=False)
    ]
    if any(isinstance(step, list) for step in steps):
        if len(steps) > 1:
            raise Unevaluable("a chained comparison of a list; write two comparisons instead")
        return steps[0]
    return all(steps)


def _each(work: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """Apply ``work`` to two numbers, or element by element where one is a list or table."""
    left, right = _listed(left), _listed(right)
    if isinstance(left, list) or isinstance(right, list):
        size = len(left if isinstance(left, list) else right)
        lefts = left if isinstance(left, list) else [left] * size
        rights = right if isinstance(right, list) else [right] * size
        if len(lefts) != len(rights):
            raise Unevaluable(f"lists of {len(lefts)} and {len(rights)} values can't be combined")
        return [_each(work, one, other) for one, other in zip(lefts, rights, strict=True)]
    try:
        return _ordinary(work(_number(left), _number(right)))
    except ZeroDivisionError:
        raise Unevaluable("a division by zero") from None


def _ordinary(result: Any) -> Any:
    if abs(result) > MAX_MAGNITUDE or result != result:
        raise Unevaluable("a number too large to mean anything")
    return result


def _call(name: str, arguments: list[Any]) -> Any:
    values = _listed(arguments[0]) if len(arguments) == 1 else arguments
    if name == "len":
        if not isinstance(values, list):
            raise Unevaluable(f"len of {_kind(values)}")
        return len(values)
    if name == "abs":
        return _each(lambda value, _: abs(value), values, 0) if len(arguments) == 1 else _wrong("abs", values)
    if not isinstance(values, list):
        raise Unevaluable(f"{name} of {_kind(values)}; it needs a list")
    if name in ("all", "any"):
        truths = [_truth(value) for value in values]
        if not truths:
            raise Unevaluable(f"{name} of an empty list")
        return all(truths) if name == "all" else any(truths)
    numbers = [_number(value) for value in values]
    if not numbers:
        raise Unevaluable(f"{name} of an empty list")
    total = _ordinary(math.fsum(numbers) if any(isinstance(n, float) for n in numbers) else sum(numbers))
    return {"min": min(numbers), "max": max(numbers), "sum": total, "mean": total / len(numbers)}[name]


def _wrong(name: str, values: Any) -> Any:
    raise Unevaluable(f"{name} of {len(values)} values")


def _listed(value: Any) -> Any:
    return list(value.values()) if isinstance(value, Mapping) else value


def _number(value: Any) -> int | float:
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, int | float):
        raise Unevaluable(f"{_kind(value)} where a number is needed")
    return _ordinary(value)  # type: ignore[no-any-return]


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unevaluable(f"{_kind(value)} where true or false is needed")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null (not measured)"
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", str: "a text"}
    return names.get(type(value), "a table")
