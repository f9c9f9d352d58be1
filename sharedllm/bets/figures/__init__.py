"""Figures drawn straight from a result's ``series``: plain SVG, no plotting library, always the same bytes.

Colours are CSS variables (``--series-0`` … ``--series-4``, each with a light and a dark value), so a figure
follows the page's theme; every series also has its own marker shape and dash, so colour is never the only
difference. A series without an alternative text or a takeaway cannot be recorded, so none is drawn.

*Covered*: lines, points, intervals and bars, over numbers or over names. *Not covered*: data with
three dimensions, maps, more than five series in one figure.
"""

from __future__ import annotations

from markupsafe import Markup

from sharedllm.bets.criteria import quantity
from sharedllm.bets.figures.chart import svg, swatch
from sharedllm.bets.figures.series import Figure, Mark, figure
from sharedllm.bets.markup import table

__all__ = ["Figure", "Mark", "figure", "html", "svg"]

MOST_ROWS = 200  # a longer table helps nobody; the JSON holds every point


def html(drawn: Figure, anchor: str) -> Markup:
    """Return the figure with takeaway, legend and data table; ``anchor`` makes its ids unique on the page."""
    legend = Markup("")
    if len(drawn.marks) > 1:
        items = Markup("").join(
            Markup(
                '<li><svg viewBox="0 0 28 12" width="28" height="12" aria-hidden="true">{}</svg>{}</li>'
            ).format(swatch(i, mark), mark.name)
            for i, mark in enumerate(drawn.marks)
        )
        legend = Markup('<ul class="legend">{}</ul>').format(items)
    return Markup(
        '<figure class="result-figure" id="{}"><figcaption><strong class="figure-title">{}</strong>'
        '<span class="takeaway">{}</span></figcaption>{}<div class="figure-box" role="region" '
        'aria-label="{}" tabindex="0">{}</div>'
        "<details><summary>The same data as a table</summary>{}</details></figure>"
    ).format(anchor, drawn.title, drawn.takeaway, legend, drawn.title, svg(drawn, anchor), _data(drawn))


def _data(drawn: Figure) -> Markup:
    """Return the figure's numbers as a table."""
    intervals = any(mark.low for mark in drawn.marks)
    columns = [
        "Series",
        drawn.x_label or "x",
        drawn.y_label or "y",
        *(["Low", "High"] if intervals else []),
    ]
    rows: list[list[object]] = []
    for mark in drawn.marks:
        for i, x in enumerate(mark.x):
            ends = [quantity(mark.low[i]), quantity(mark.high[i])] if mark.low else ["", ""]
            rows.append(
                [
                    mark.name,
                    x if isinstance(x, str) else quantity(x),
                    quantity(mark.y[i]),
                    *(ends if intervals else []),
                ]
            )
    note = (
        f" (the first {MOST_ROWS} of {len(rows)} rows; the JSON holds all)" if len(rows) > MOST_ROWS else ""
    )
    return table(f"{drawn.title}: data{note}", columns, rows[:MOST_ROWS], kind="numbers")
