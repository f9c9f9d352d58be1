"""Two renderings of a rule: what "must be" the case, and what "was"."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from sharedllm.bets.criteria.expression import COMPARISONS, Expression, Unevaluable, evaluate

__all__ = ["must", "observed", "quantity", "was"]

_SIGNS: dict[type[ast.AST], str] = {
    ast.Lt: "<",
    ast.LtE: "≤",
    ast.Gt: ">",
    ast.GtE: "≥",
    ast.Eq: "=",
    ast.NotEq: "≠",
    ast.Add: "+",
    ast.Sub: "−",
    ast.Mult: "×",
    ast.Div: "/",
}
_TIGHT = {"×", "%", "°"}  # units that touch their number
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_DIGITS = 4


def must(rule: Expression, unit: str) -> str:
    """Say what has to hold: ``must be ≤ 1.1×``."""
    return _must(rule.tree, unit)


def was(rule: Expression, unit: str, metrics: Mapping[str, Any]) -> str:
    """Say what held: ``was 1.084×``; a null or an impossible value is said in words."""
    try:
        return _was(rule.tree, unit, metrics)
    except Unevaluable as error:
        return f"could not be judged: {error}"


def observed(rule: Expression, metrics: Mapping[str, Any]) -> float | int | bool | None:
    """Return the number a rule compares, its truth where it compares several, or None where it has none."""
    tree = rule.tree
    try:
        value = evaluate(tree.left if isinstance(tree, ast.Compare) else tree, metrics)
        return value if isinstance(value, bool | int | float) else bool(rule.holds(metrics))
    except Unevaluable:
        return None


def quantity(value: Any, unit: str = "", digits: int = _DIGITS) -> str:
    """Write a number for people: ``1,000 tokens``, ``1.084×``, ``3.1×10⁻⁷ nats``, ``yes``."""
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return _several(value, unit, digits)
    if unit in ("", "1"):
        return _number(value, digits)
    return _number(value, digits) + (unit if unit[0] in _TIGHT else f" {unit}")


def _number(value: int | float, digits: int) -> str:
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        text = f"{int(value):,}"
    elif 1e-3 <= abs(value) < 1e6:
        text = f"{value:,.{_shown(value, digits)}g}"
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return text.replace("-", "−")


def _shown(value: float, digits: int) -> int:
    """Digits that are written: below a million, never fewer than stand before the point."""
    return max(digits, len(str(int(abs(value))))) if abs(value) < 1e6 else digits


def _several(values: list[Any], unit: str, digits: int) -> str:
    if not values:
        return "an empty list"
    if all(isinstance(value, bool) for value in values):
        return f"yes for {sum(values)} of {len(values)}"
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) != len(values):
        return f"{len(values)} values"
    if len(numbers) <= 5:
        return ", ".join(quantity(number, unit, digits) for number in numbers)
    low, high = quantity(min(numbers), unit, digits), quantity(max(numbers), unit, digits)
    return f"{len(numbers)} values from {low} to {high}"


def _must(node: ast.expr, unit: str) -> str:
    match node:
        case ast.BoolOp(op=op, values=values):
            word = " and " if isinstance(op, ast.And) else " or "
            return word.join(_named_must(value, unit) for value in values)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return f"must not hold: {_pretty(inner)}"
        case ast.Compare(left=left, ops=[op], comparators=[right]) if _constant(right) is not None:
            return f"must be {_bound(op, right, unit)}"
        case ast.Compare(left=left, ops=[low, high], comparators=[_, right]) if _range(node):
            flipped = {"<": ">", "≤": "≥", ">": "<", "≥": "≤"}.get(_SIGNS[type(low)], _SIGNS[type(low)])
            return f"must be {flipped} {quantity(_constant(left), unit)} and {_bound(high, right, unit)}"
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return f"{_pretty(left)} must be {_SIGNS[type(op)]} {_pretty(right)}"
        case ast.Call(func=ast.Name(id=name), args=[ast.Compare() as inner]):
            return f"{'every' if name == 'all' else 'at least one'} value {_named_must(inner, unit)}"
        case ast.Name() | ast.Attribute() | ast.Subscript():
            return "must be yes"
        case _:
            return f"must hold: {_pretty(node)}"


def _named_must(node: ast.expr, unit: str) -> str:
    """The same with its subject, for a rule that is one part of a larger one."""
    if isinstance(node, ast.Compare) and (_range(node) or _constant(node.comparators[0]) is not None):
        subject = node.comparators[0] if _range(node) else node.left
        return f"{_pretty(subject)} {_must(node, unit)}"
    if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
        return f"{_pretty(node)} must be yes"
    return _must(node, unit)


def _was(node: ast.expr, unit: str, metrics: Mapping[str, Any]) -> str:
    match node:
        case ast.BoolOp(values=values):
            return ", ".join(f"{_subject(value)} {_was(value, unit, metrics)}" for value in values)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return _was(inner, unit, metrics)
        case ast.Compare(ops=[op], comparators=[right]) if _constant(right) is not None:
            value, bound = evaluate(node.left, metrics), _constant(right)
            return f"was {quantity(value, unit, _enough_digits(value, op, bound))}"
        case ast.Compare(comparators=[middle, _]) if _range(node):
            return f"was {quantity(evaluate(middle, metrics), unit)}"
        case ast.Compare(left=left, comparators=others):
            sides = [quantity(evaluate(part, metrics), unit, 6) for part in (left, *others)]
            return "was " + " against ".join(sides)
        case ast.Call(args=[ast.Compare(left=left)]):
            return f"was {quantity(evaluate(left, metrics), unit)} ({quantity(evaluate(node, metrics))})"
        case _:
            return f"was {quantity(evaluate(node, metrics), unit)}"


def _enough_digits(value: Any, op: ast.cmpop, bound: Any) -> int:
    """Digits at which the rounded number is on the same side of the bound as the real one."""
    if isinstance(value, bool | int) or not isinstance(value, float) or value.is_integer():
        return _DIGITS
    compare = COMPARISONS[type(op)]
    for digits in range(_DIGITS, 17):
        if compare(float(f"{value:.{_shown(value, digits) - 1}e}"), bound) == compare(value, bound):
            return digits
    return 17


def _exact_digits(value: Any) -> int:
    """Fewest digits that name exactly this number: a bound is never rounded."""
    if not isinstance(value, float):
        return _DIGITS
    return next((n for n in range(_DIGITS, 17) if float(f"{value:.{n - 1}e}") == value), 17)


def _bound(op: ast.cmpop, right: ast.expr, unit: str) -> str:
    sign, value = _SIGNS[type(op)], _constant(right)
    return ("" if sign == "=" else f"{sign} ") + quantity(value, unit, _exact_digits(value))


def _constant(node: ast.expr) -> Any:
    """The value of an expression without metrics, else None."""
    if any(isinstance(part, ast.Name) and part.id not in ("true", "false") for part in ast.walk(node)):
        return None
    try:
        return evaluate(node, {})
    except Unevaluable:
        return None


def _range(node: ast.Compare) -> bool:
    return (
        len(node.ops) == 2
        and _constant(node.left) is not None
        and _constant(node.comparators[1]) is not None
        and _constant(node.comparators[0]) is None
    )


def _subject(node: ast.expr) -> str:
    if isinstance(node, ast.Compare):
        return _pretty(node.comparators[0] if _range(node) else node.left)
    return _pretty(node)


def _pretty(node: ast.expr) -> str:
    """The expression as a person writes it: ``max slack ≤ 0`` for ``max_slack <= 0``."""
    match node:
        case ast.Constant(value=value):
            return quantity(value, "", _exact_digits(value))
        case ast.Name(id=name):
            return name
        case (
            ast.Attribute(value=inner, attr=key)
            | ast.Subscript(value=inner, slice=ast.Constant(value=str(key)))
        ):
            return f"{_pretty(inner)}[{key}]"
        case ast.BinOp(left=left, op=op, right=right):
            return f"({_pretty(left)} {_SIGNS[type(op)]} {_pretty(right)})"
        case ast.UnaryOp(op=op, operand=inner):
            return ("not " if isinstance(op, ast.Not) else "−") + _pretty(inner)
        case ast.BoolOp(op=joint, values=parts):
            return (" and " if isinstance(joint, ast.And) else " or ").join(f"({_pretty(v)})" for v in parts)
        case ast.Compare(left=left, ops=ops, comparators=others):
            tail = "".join(f" {_SIGNS[type(op)]} {_pretty(o)}" for op, o in zip(ops, others, strict=True))
            return _pretty(left) + tail
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return f"{name}({', '.join(_pretty(argument) for argument in arguments)})"
    return ast.unparse(node)
