"""Where the catalogue stands: verdicts counted and explained, and the passes to expect by luck alone."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from sharedllm.bets.criteria import VERDICTS, quantity
from sharedllm.bets.index.entries import Entry, SeedClaim, unrun
from sharedllm.bets.markup import MEANINGS, STANDINGS, badge, pill
from sharedllm.bets.registration import Registration

__all__ = ["false_passes", "legend", "standings", "tally"]

INTERVAL_TAIL = 0.025  # one end of a 95 % interval


def legend() -> Markup:
    """Return every verdict with its meaning."""
    return _definitions((badge(verdict), meaning) for verdict, meaning in MEANINGS.items())


def standings() -> Markup:
    """Return every standing with its meaning."""
    return _definitions((pill(word), meaning) for word, meaning in STANDINGS.items())


def _definitions(pairs: Iterable[tuple[Markup, str]]) -> Markup:
    items = [Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(term, text) for term, text in pairs]
    return Markup('<dl class="meanings">{}</dl>').format(Markup("").join(items))


def tally(entries: Sequence[Entry], claims: Sequence[SeedClaim]) -> Markup:
    """Return how many verdicts of each kind there are, and how many passes to expect by luck alone."""
    verdicts = [e.verdict(regime) for e in entries for regime in e.bet.registration.regimes]
    counts = Counter(verdicts)
    rows = Markup("").join(
        Markup("<li>{} <strong>{}</strong></li>").format(badge(v), counts[v]) for v in VERDICTS if counts[v]
    )
    return Markup(
        '<p>{} bets make {} pairs of bet and regime:</p>\n<ul class="tally">{}</ul>\n<p>{}</p>\n'
        "<p>{} further claims, from the project description that this catalogue began with, are listed as "
        "unrun; nobody here has checked them. "
        '<a href="catalogue.html">The index</a> has them all, and <a href="catalogue.json" download>'
        "catalogue.json</a> is the whole catalogue in one file.</p>"
    ).format(len(entries), len(verdicts), rows, _luck(entries), len(unrun(entries, claims)))


def _luck(entries: Sequence[Entry]) -> Markup:
    bound, by_chance, exact = false_passes(entries)
    if not by_chance + exact:
        return Markup("Nothing is decided yet, so there is no pass that could be false.")
    return Markup(
        "<strong>Strict passes to expect by luck alone: at most {}.</strong> Of the decided verdicts, {} "
        "rest on chance, each at the rate that its criteria allow, and {} on exact arithmetic, which luck "
        'cannot win. <a href="methodology.html#how-many-passes-are-false">How this is counted.</a>'
    ).format(quantity(bound), by_chance, exact)


def false_passes(entries: Iterable[Entry]) -> tuple[float, int, int]:
    """Bound the strict passes to expect although nothing is there, over all verdicts that were decided.

    Returns the bound (a sum of rates), how many verdicts rest on chance, and how many do not. An e-value
    reaches c under the null with probability at most 1/c (Ville); one end of a 95 % interval errs in 2.5 % of
    cases, nominally. A strict pass needs every strict criterion, so the smallest rate of a bet counts.
    """
    rates = [
        _rate(entry.bet.registration)
        for entry in entries
        for regime in entry.bet.registration.regimes
        if entry.verdict(regime) not in ("UNRUN", "VOID")
    ]
    chances = [rate for rate in rates if rate is not None]
    return sum(chances), len(chances), len(rates) - len(chances)


def _rate(registration: Registration) -> float | None:
    """Return the rate of false strict passes that the criteria allow, or None where none rests on chance."""
    strict = [criterion.rule for criterion in registration.criteria if criterion.level == "strict"]
    rates = [1 / bar for rule in strict for bar in _bars(rule.tree)]
    ends = {part for rule in strict for name in rule.names for part in name.split("_")}
    if ends & {"low", "high"}:
        rates.append(INTERVAL_TAIL)
    return min(rates, default=None)


def _bars(tree: ast.expr) -> list[float]:
    """Return the bars that a rule sets for e-values."""
    bars = []
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, ops=[ast.GtE() | ast.Gt()], comparators=[ast.Constant(value=bar)]):
                if "e_value" in ast.unparse(left) and isinstance(bar, int | float) and bar > 1:
                    bars.append(float(bar))
    return bars
