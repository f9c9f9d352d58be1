"""The drawing itself: a plane for numbers, rows for names; markers and dashes differ as well as colours."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from sharedllm.bets.criteria import quantity
from sharedllm.bets.figures.axes import Axis, axis
from sharedllm.bets.figures.series import Figure, Mark
from sharedllm.bets.markup import slug

__all__ = ["svg", "swatch"]

WIDTH = 640
DASHES = ("", "7 4", "2 3", "9 3 2 3", "1 5")
LEFT, RIGHT, TOP, BOTTOM = 62.0, 18.0, 14.0, 46.0
PLOT_HEIGHT = 250.0
LANE = 24.0


def svg(figure: Figure, anchor: str = "figure") -> Markup:
    """Return the figure as inline SVG, at most 720 px wide, byte-identical for equal input."""
    named = any(isinstance(x, str) or mark.kind == "bar" for mark in figure.marks for x in mark.x)
    if not figure.marks:
        height, body = 60.0, _text(WIDTH / 2, 34, "No value was measured.", "middle", "label")
    else:
        height, body = _rows(figure) if named else _plane(figure)
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="{a}-t {a}-d" '
        'xmlns="http://www.w3.org/2000/svg"><title id="{a}-t">{}</title><desc id="{a}-d">{}</desc>{}</svg>'
    ).format(WIDTH, _c(height), figure.title, figure.alt, body, a=slug(anchor))


def _plane(figure: Figure) -> tuple[float, Markup]:
    """Draw numbers against numbers."""
    xs = [float(x) for mark in figure.marks for x in mark.x]
    ys = [v for mark in figure.marks for v in (*mark.y, *mark.low, *mark.high)]
    ax = axis(xs, LEFT, WIDTH - RIGHT)
    ay = axis(ys, TOP + PLOT_HEIGHT, TOP)
    parts = [_grid(ax, ay, figure)]
    for i, mark in enumerate(figure.marks):
        points = [(ax.at(float(x)), ay.at(y)) for x, y in zip(mark.x, mark.y, strict=True)]
        ends = [(ay.at(a), ay.at(b)) for a, b in zip(mark.low, mark.high, strict=True)]
        if mark.kind == "line" and mark.low:
            edge = [(p[0], e[1]) for p, e in zip(points, ends, strict=True)]
            back = [(p[0], e[0]) for p, e in reversed(list(zip(points, ends, strict=True)))]
            parts.append(_m('<polygon class="band s{}" points="{}"/>', i % 5, _path(edge + back)))
        elif ends:
            parts += [_whisker(i, x, a, x, b) for (x, _), (a, b) in zip(points, ends, strict=True)]
        if mark.kind == "line":
            parts.append(_m('<polyline class="stroke s{}" {}points="{}"/>', i % 5, _dash(i), _path(points)))
        if mark.kind != "line" or len(points) <= 24:
            parts += [_shape(i, x, y) for x, y in points]
    return TOP + PLOT_HEIGHT + BOTTOM, Markup("").join(parts)


def _grid(ax: Axis, ay: Axis, figure: Figure) -> Markup:
    """Draw tick lines, tick labels and axis labels of a plane."""
    bottom, parts = TOP + PLOT_HEIGHT, []
    for tick in ay.ticks():
        y = ay.at(tick)
        parts.append(_m('<path class="grid" d="M{} {}H{}"/>', _c(LEFT), _c(y), _c(WIDTH - RIGHT)))
        parts.append(_text(LEFT - 8, y + 4, _tick(tick), "end"))
    for tick in ax.ticks():
        x = ax.at(tick)
        parts.append(_m('<path class="axis" d="M{} {}v5"/>', _c(x), _c(bottom)))
        parts.append(_text(x, bottom + 19, _tick(tick), "middle"))
    parts.append(_m('<path class="axis" d="M{} {}H{}"/>', _c(LEFT), _c(bottom), _c(WIDTH - RIGHT)))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text(middle, bottom + 39, _label(figure.x_label, ax), "middle", "label"))
    up = _m(
        '<text class="label" text-anchor="middle" transform="translate(14 {}) rotate(-90)">',
        _c(TOP + PLOT_HEIGHT / 2),
    )
    parts.append(up + Markup("{}</text>").format(_label(figure.y_label, ay)))
    return Markup("").join(parts)


def _rows(figure: Figure) -> tuple[float, Markup]:
    """Draw one row per name: bars, points or intervals, each with its number written out on the right."""
    names = list(
        dict.fromkeys(str(x) if isinstance(x, str) else quantity(x) for m in figure.marks for x in m.x)
    )
    values = [v for mark in figure.marks for v in (*mark.y, *mark.low, *mark.high)]
    left = min(230.0, 24 + 7.2 * max(min(len(n), 30) for n in names))
    right = WIDTH - 74.0
    zero = any(mark.kind == "bar" for mark in figure.marks)
    ax = axis(values, left, right, zero=zero)
    lane = LANE if len(figure.marks) == 1 else LANE - 5
    group = lane * len(figure.marks) + 10
    bottom = TOP + group * len(names)
    parts = [_columns(ax, left, bottom)]
    for row, name in enumerate(names):
        parts += _row_label(name, left - 10, TOP + group * (row + 0.5))
    for i, mark in enumerate(figure.marks):
        for k, x in enumerate(mark.x):
            row = names.index(x if isinstance(x, str) else quantity(x))
            y = TOP + group * row + 5 + lane * (i + 0.5)
            parts += _row_mark(ax, i, mark, k, y)
            parts.append(_text(WIDTH - 4, y + 4, quantity(mark.y[k]), "end", "value"))
    parts.append(_text((left + right) / 2, bottom + 39, _label(figure.y_label, ax), "middle", "label"))
    return bottom + BOTTOM, Markup("").join(parts)


def _columns(ax: Axis, left: float, bottom: float) -> Markup:
    """Draw the value grid under the rows; zero, where it is inside, is drawn stronger."""
    parts = []
    for tick in ax.ticks():
        kind = "axis" if abs(tick) < 1e-12 and not ax.log else "grid"
        parts.append(_m('<path class="{}" d="M{} {}V{}"/>', kind, _c(ax.at(tick)), _c(TOP), _c(bottom)))
        parts.append(_text(ax.at(tick), bottom + 19, _tick(tick), "middle"))
    return Markup("").join(parts)


def _row_label(name: str, x: float, y: float) -> list[Markup]:
    """Write a row's name, on two lines when it is long."""
    if len(name) <= 30:
        return [_text(x, y + 4, name, "end")]
    cut = name.rfind(" ", 0, 31)
    cut = cut if cut > 0 else 30
    second = name[cut:].strip()
    second = second if len(second) <= 30 else second[:29] + "…"
    return [_text(x, y - 4, name[:cut], "end"), _text(x, y + 11, second, "end")]


def _row_mark(ax: Axis, i: int, mark: Mark, k: int, y: float) -> list[Markup]:
    """Draw one value of a row."""
    x, parts = ax.at(mark.y[k]), []
    if mark.kind == "bar":
        base = ax.at(0.0)
        box = (_c(min(base, x)), _c(y - 7), _c(abs(x - base)))
        parts.append(_m('<rect class="fill s{}" x="{}" y="{}" width="{}" height="14"/>', i % 5, *box))
    if mark.low:
        parts.append(_whisker(i, ax.at(mark.low[k]), y, ax.at(mark.high[k]), y))
    if mark.kind != "bar":
        parts.append(_shape(i, x, y))
    return parts


def _whisker(i: int, x1: float, y1: float, x2: float, y2: float) -> Markup:
    """Draw an interval with end caps, horizontal or vertical."""
    cap = "v-8" if y1 == y2 else "h-8"
    start = f"M{_c(x1)} {_c(y1 + 4)}{cap}" if y1 == y2 else f"M{_c(x1 + 4)} {_c(y1)}{cap}"
    end = f"M{_c(x2)} {_c(y2 + 4)}{cap}" if y1 == y2 else f"M{_c(x2 + 4)} {_c(y2)}{cap}"
    line = f"M{_c(x1)} {_c(y1)}L{_c(x2)} {_c(y2)}"
    return _m('<path class="stroke thin s{}" d="{}"/>', i % 5, start + line + end)


def _shape(i: int, x: float, y: float) -> Markup:
    """Draw the marker of curve ``i``: circle, square, triangle, diamond, cross; hollow from the sixth."""
    outlines = (
        "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
        "M-4-4h8v8h-8z",
        "M0-5l5 9h-10z",
        "M0-5.5L5.5 0 0 5.5-5.5 0z",
        "M-4-4L4 4M4-4L-4 4",
    )
    kind = "stroke thin" if i % 5 == 4 or i > 4 else "fill"
    at = f"translate({_c(x)} {_c(y)})"
    return _m('<path class="{} s{}" transform="{}" d="{}"/>', kind, i % 5, at, outlines[i % 5])


def swatch(i: int, mark: Mark) -> Markup:
    """Draw the sample of a series for the legend."""
    if mark.kind == "bar":
        return _m('<rect class="fill s{}" x="6" y="1" width="16" height="10"/>', i % 5)
    if mark.kind == "line":
        return _m('<path class="stroke s{}" {}d="M1 6H27"/>', i % 5, _dash(i))
    return _shape(i, 14, 6)


def _dash(i: int) -> Markup:
    return _m('stroke-dasharray="{}" ', DASHES[i % 5]) if DASHES[i % 5] else Markup("")


def _label(label: str, axis: Axis) -> str:
    return f"{label} (log scale)" if axis.log else label


def _tick(value: float) -> str:
    """Return a tick's text; a rounding crumb beside zero is zero."""
    text = quantity(0 if abs(value) < 1e-12 else float(f"{value:.10g}"))
    return text.removeprefix("1×") if text.startswith("1×10") else text


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Markup:
    return _m('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>', kind, _c(x), _c(y), anchor, text)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_c(x)},{_c(y)}" for x, y in points)


def _c(value: float) -> str:
    """Return a coordinate with at most two decimals, so that rebuilding gives the same bytes."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _m(template: str, *values: object) -> Markup:
    """Format a template of ours; every value is escaped."""
    return Markup(template).format(*values)
