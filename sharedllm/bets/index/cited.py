"""Bets that a guide cites: their verdicts stand on its page as the ledger holds them, typed by nobody."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from sharedllm.bets.index.entries import Entry
from sharedllm.bets.markup import badge, fenced, table

__all__ = ["cite"]

_CITING = re.compile(r"<!-- generated: verdicts((?: b\d{3})+) -->")


def cite(text: str, entries: Mapping[str, Entry], root: str) -> str:
    """Put a table of verdicts wherever a page says ``<!-- generated: verdicts b037 b060 -->``.

    ``root`` is the way from the page to the book's first one, such as ``../``. A bet that the catalogue does
    not hold is named, and said to be missing.
    """

    def cited(found: re.Match[str]) -> str:
        rows = [_row(id, entries.get(id), root) for id in found[1].split()]
        words = table("Bets on this, and their verdicts so far.", ("Bet", "Asked", "Verdict"), rows)
        return fenced("{raw} html", str(words))

    return _CITING.sub(cited, text)


def _row(id: str, entry: Entry | None, root: str) -> Sequence[object]:
    if entry is None:
        return id, "This catalogue does not hold it.", "–"
    link = Markup('<a href="{}bets/{}.html">{}</a>').format(root, entry.bet.folder.name, id)
    verdicts = [
        Markup('<span class="nowrap">{}: {}</span>').format(regime, badge(entry.verdict(regime)))
        for regime in entry.bet.registration.regimes
    ]
    return link, entry.bet.editorial.title, Markup("<br>").join(verdicts)
