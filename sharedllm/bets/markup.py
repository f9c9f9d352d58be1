"""The book's small vocabulary: a verdict as word, shape and colour, a captioned table, text that stays text.

Everything that comes from a ``bet.toml`` or a result is escaped here: ``Markup.format`` escapes what it is
given, and ``markdown`` makes every punctuation mark literal, so that no claim can smuggle in a tag.

*Covered*: HTML in elements and double-quoted attributes; CommonMark and MyST syntax. *Not covered*: text
placed inside ``<script>``, ``<style>`` or an unquoted attribute; nothing here does that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup

__all__ = [
    "MEANINGS",
    "STANDINGS",
    "badge",
    "code",
    "fenced",
    "markdown",
    "pill",
    "slug",
    "table",
]

MEANINGS: dict[str, str] = {
    "STRICT PASS": "every strict criterion held: the claim came out as promised",
    "LENIENT PASS": "the lenient level held, the strict one did not: less than promised, still useful",
    "FAIL": "neither the strict nor the lenient level held",
    "CATASTROPHIC": "neither held, and the level registered as harmful was reached",
    "VOID": "a control failed, or the registration was not the one that ran, so the numbers decide nothing",
    "UNRUN": "no canonical run yet",
}

STANDINGS: dict[str, str] = {
    "unregistered": "its criteria are not fixed yet, so nothing can be decided by them",
    "registered": "claim, criteria and controls are fixed; no canonical run yet",
    "decided": "a canonical run has decided it",
    "replicated": "a second, independent run agrees",
    "corrected": "a correction was published beside it",
    "superseded": "a later bet replaces it",
    "retracted": "the claim is withdrawn; the verdict stays in sight",
}

# Drawn in a 16 × 16 box, so that the shape alone tells verdicts apart.
SHAPES: dict[str, str] = {
    "STRICT PASS": '<circle cx="8" cy="8" r="6.5" fill="currentColor"/>',
    "LENIENT PASS": '<circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="1.6"/>'
    '<path d="M8 2a6 6 0 0 1 0 12z" fill="currentColor"/>',
    "FAIL": '<circle cx="8" cy="8" r="5.7" fill="none" stroke="currentColor" stroke-width="2.2"/>',
    "CATASTROPHIC": '<path d="M3 3l10 10M13 3L3 13" fill="none" stroke="currentColor" stroke-width="2.8"/>',
    "VOID": '<circle cx="8" cy="8" r="5.7" fill="none" stroke="currentColor" stroke-width="1.8"/>'
    '<path d="M3.2 12.8L12.8 3.2" fill="none" stroke="currentColor" stroke-width="1.8"/>',
    "UNRUN": '<path d="M3.5 8h9" fill="none" stroke="currentColor" stroke-width="2.2"/>',
}

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_CODE = re.compile(r"`([^`\n]+)`")


def slug(text: str) -> str:
    """Return ``text`` as lower-case letters, digits and hyphens, usable as a class, an id or a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def badge(verdict: str) -> Markup:
    """Return a verdict as shape, word and colour; a screen reader gets the word."""
    shape = Markup(SHAPES[verdict])
    return Markup(
        '<span class="verdict verdict-{}"><svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" '
        'focusable="false">{}</svg><span>{}</span></span>'
    ).format(slug(verdict), shape, verdict)


def pill(standing: str, by: str = "") -> Markup:
    """Return a standing as a quiet outlined word, with the bet that caused it if there is one."""
    text = f"{standing} by {by}" if by else standing
    return Markup('<span class="standing standing-{}">{}</span>').format(slug(standing), text)


def code(text: object) -> Markup:
    """Return inline code."""
    return Markup("<code>{}</code>").format(text)


def markdown(text: str) -> str:
    """Return plain text as Markdown that shows exactly that text; code spans and paragraphs survive."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(_inline(part) for part in paragraphs if part)


def _inline(text: str) -> str:
    """Escape one paragraph, and let its code spans through as code spans."""
    pieces = _CODE.split(text)
    literal = [_PUNCTUATION.sub(r"\\\1", piece) for piece in pieces[0::2]]
    spans = [f"`{piece}`" for piece in pieces[1::2]] + [""]
    return "".join(a + b for a, b in zip(literal, spans, strict=True))


def fenced(kind: str, body: str) -> str:
    """Return a fenced block whose fence is longer than any run of backticks inside it."""
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{body}\n{fence}\n"


def table(
    caption: str | Markup,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    kind: str = "",
    row_attributes: Sequence[Markup] = (),
) -> Markup:
    """Return a captioned table in its own scroll box; the first cell of every row is its header."""
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in columns)
    body = []
    for index, (first, *rest) in enumerate(rows):
        attributes = row_attributes[index] if row_attributes else Markup("")
        cells = Markup("").join(Markup("<td>{}</td>").format(cell) for cell in rest)
        body.append(Markup('<tr{}><th scope="row">{}</th>{}</tr>').format(attributes, first, cells))
    label = Markup(caption).striptags() if isinstance(caption, Markup) else caption
    return Markup(
        '<div class="table-box" role="region" aria-label="{}" tabindex="0"><table class="data {}">\n'
        "<caption><span>{}</span></caption>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody></table></div>"
    ).format(label, kind, caption, head, Markup("\n").join(body))
