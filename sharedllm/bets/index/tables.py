"""Both tables and their filters, which are selects and CSS alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from sharedllm.bets.criteria import VERDICTS
from sharedllm.bets.index.entries import CHAPTERS, Entry, SeedClaim, unrun
from sharedllm.bets.markup import STANDINGS, badge, pill, slug, table

__all__ = ["filters_css", "index"]

FILTERS = ("verdict", "standing", "chapter", "regime")


def index(entries: Sequence[Entry], claims: Sequence[SeedClaim]) -> Markup:
    """Return filters and both tables; every row is there without JavaScript and without ``:has()``."""
    waiting = unrun(entries, claims)
    rows = [(entry, regime) for entry in entries for regime in entry.bet.registration.regimes]
    keys = [
        _keys(entry.verdict(regime), entry.standing(regime).word, entry.bet.editorial.chapter, [regime])
        for entry, regime in rows
    ] + [_keys("UNRUN", "unregistered", claim.chapter, claim.regimes) for claim in waiting]
    ours = table(
        "Bets with criteria of our own, one row per bet and regime",
        ("Bet", "Regime", "Verdict", "Title", "Standing", "Chapter", "Decided"),
        [_row(entry, regime) for entry, regime in rows],
        kind="index",
        row_attributes=[_attributes(k) for k in keys[: len(rows)]],
    )
    theirs = table(
        "Claims of the seed, the project description that this catalogue began with, for which no criteria "
        "are written here yet. Figures and verdicts are the seed’s own; nobody here has checked them.",
        ("Bet", "Verdict here", "Its claim", "Its figure", "Its verdict", "Chapter", "Regimes"),
        [_seed_row(claim) for claim in waiting],
        kind="index seed",
        row_attributes=[_attributes(k) for k in keys[len(rows) :]],
    )
    return Markup(
        '<div class="catalogue">{}\n<h2 id="our-bets">Bets</h2>\n{}\n'
        '<h2 id="unrun-claims">Unrun claims</h2>\n{}\n<p class="shown quiet small">Rows shown: </p></div>'
    ).format(_filters(keys), ours, theirs)


def _row(entry: Entry, regime: str) -> tuple[object, ...]:
    about, now = entry.bet.editorial, entry.standing(regime)
    link = Markup('<a href="bets/{}.html">{}</a>').format(entry.bet.folder.name, about.id)
    by = (now.event.by or "") if now.event else ""
    cells = (link, regime, badge(entry.verdict(regime)), about.title, pill(now.word, by), about.chapter)
    return (*cells, Markup('<span class="nowrap">{}</span>').format(entry.decided_on(regime)))


def _seed_row(claim: SeedClaim) -> tuple[object, ...]:
    regimes = ", ".join(claim.regimes) or "waits for a device"
    return (claim.id, badge("UNRUN"), claim.claim, claim.figure, claim.verdict, claim.chapter, regimes)


def _keys(verdict: str, word: str, chapter: str, regimes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the words that a row can be filtered by."""
    return {"verdict": (verdict,), "standing": (word,), "chapter": (chapter,), "regime": tuple(regimes)}


def _attributes(keys: Mapping[str, tuple[str, ...]]) -> Markup:
    parts = [Markup(' data-{}="{}"').format(k, " ".join(slug(v) for v in keys[k])) for k in FILTERS]
    return Markup("").join(parts)


def _filters(keys: Sequence[Mapping[str, tuple[str, ...]]]) -> Markup:
    """Return one select per filter with the values that occur, and how often."""
    selects = []
    for name in FILTERS:
        counts = Counter(value for row in keys for value in row[name])
        known = {"verdict": VERDICTS, "standing": tuple(STANDINGS), "chapter": CHAPTERS}.get(name, ())
        order = [v for v in known if v in counts] + sorted(set(counts) - set(known))
        options = Markup("").join(
            Markup('<option value="{}">{} ({})</option>').format(slug(v), v, counts[v]) for v in order
        )
        selects.append(
            Markup(
                '<div><label for="filter-{n}">{}</label><select id="filter-{n}" name="{n}">'
                '<option value="" selected>All</option>{}</select></div>'
            ).format(name.capitalize(), options, n=name)
        )
    return Markup(
        '<form class="filters" aria-label="Filter the tables" autocomplete="off">{}'
        '<div><button type="reset">Show all</button></div></form>'
    ).format(Markup("").join(selects))


def filters_css(entries: Sequence[Entry], claims: Sequence[SeedClaim]) -> str:
    """Return the rules that hide rows: a select's chosen option hides every row without that word."""
    values: dict[str, set[str]] = {
        "verdict": set(VERDICTS),
        "standing": set(STANDINGS),
        "chapter": {*CHAPTERS, *(entry.bet.editorial.chapter for entry in entries)},
        "regime": {r for entry in entries for r in entry.bet.registration.regimes}
        | {r for claim in claims for r in claim.regimes},
    }
    rules = [
        f'.catalogue:has(#filter-{name} option[value="{value}"]:checked) '
        f'tbody tr:not([data-{name}~="{value}"]) {{ display: none; }}'
        for name in FILTERS
        for value in sorted(slug(v) for v in values[name])
    ]
    return "\n".join(rules) + "\n"
