"""A receipt as a page of its own: one HTML file, no script, nothing fetched.

Every specialist has a letter, a pattern and a colour, and every share its number, so colour is never the
only difference; light and dark follow the reader's system. All that a receipt says is escaped by ``Markup``.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from sharedllm.attribution.receipts import BILLION, Token, Verified

__all__ = ["page"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HUES = (212, 28, 150, 320, 52, 265, 0, 182)
_PATTERNS = (
    "none",
    "repeating-linear-gradient(45deg,transparent 0 4px,var(--line) 4px 6px)",
    "repeating-linear-gradient(0deg,transparent 0 4px,var(--line) 4px 6px)",
    "repeating-linear-gradient(90deg,transparent 0 4px,var(--line) 4px 6px)",
    "repeating-linear-gradient(135deg,transparent 0 4px,var(--line) 4px 6px)",
    "radial-gradient(var(--line) 1.5px,transparent 2px) 0 0/7px 7px",
    "repeating-linear-gradient(45deg,transparent 0 8px,var(--line) 8px 10px)",
    "repeating-linear-gradient(90deg,transparent 0 9px,var(--line) 9px 11px)",
)
_STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1b1f24;--soft:#57606a;--rule:#d0d7de;--line:#0006;
--fill:72%}
@media(prefers-color-scheme:dark){:root{--back:#0d1117;--text:#e6edf3;--soft:#9da7b1;--rule:#30363d;--line:#fff6;
--fill:34%}}
body{margin:2rem auto;max-width:60rem;padding:0 1rem;background:var(--back);color:var(--text);
font:16px/1.5 system-ui,sans-serif}
table{border-collapse:collapse;width:100%}
caption{text-align:left;color:var(--soft);padding-bottom:.5rem}
th,td{text-align:left;padding:.2rem .6rem .2rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
code{overflow-wrap:anywhere}
.bar{display:flex;height:1.1rem;min-width:14rem;overflow:hidden;
border:1px solid var(--rule);border-radius:3px}
.bar span,.key{border-right:1px solid var(--text)}
.bar span:last-child{border-right:0}
.key{display:inline-block;width:1.4rem;height:1rem;border:1px solid var(--text);vertical-align:-.15rem}
.shares{color:var(--soft);font-size:.85rem;font-variant-numeric:tabular-nums}
ul{padding-left:1.2rem}
"""


def page(good: Verified, pieces: Sequence[str]) -> str:
    """The page of a verified receipt; ``pieces`` are its tokens as a person reads them."""
    head = good.answer.head
    letters = [_letter(i) for i in range(len(head.specialists))]
    rows = Markup("").join(
        _row(number, token, piece, letters)
        for number, (token, piece) in enumerate(zip(good.answer.tokens, pieces, strict=True))
    )
    legend = Markup("").join(
        Markup('<li><span class="key {}" aria-hidden="true"></span> {}: {} <code>{}</code></li>').format(
            _class(i), letters[i], name, head.ids[i]
        )
        for i, name in enumerate(head.specialists)
    )
    return Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        "<title>Receipt {}</title><style>{}</style></head><body><main><h1>Who said which token</h1>"
        "<p>{}, request <code>{}</code>, by {}; ended: {}.</p><h2>Specialists</h2><ul>{}</ul>"
        "<h2>Tokens</h2><table><caption>Each token, its probability under the mixture, and each specialist's "
        'share of it.</caption><thead><tr><th scope="col" class="number">#</th><th scope="col">Token</th>'
        '<th scope="col" class="number">Probability</th><th scope="col">Responsibilities</th></tr></thead>'
        "<tbody>{}</tbody></table><h2>What this proves</h2><ul>{}</ul><h2>What it leaves open</h2><ul>{}</ul>"
        "</main></body></html>"
    ).format(
        head.request_id,
        Markup(_STYLE + _fills(len(head.specialists))),
        head.model,
        head.request_id,
        head.rule,
        good.answer.finish_reason or "the log holds no end of it",
        legend,
        rows,
        _list(good.proves),
        _list(good.leaves_open),
    )


def _row(number: int, token: Token, piece: str, letters: Sequence[str]) -> Markup:
    shares = [(i, share / BILLION) for i, share in enumerate(token.shares) if share]
    bar = Markup("").join(
        Markup('<span class="{}" style="width:{:.2f}%"></span>').format(_class(i), 100 * share)
        for i, share in shares
    )
    said = ", ".join(f"{letters[i]} {share:.3f}" for i, share in shares)
    return Markup(
        '<tr><td class="number">{}</td><th scope="row"><code>{}</code></th><td class="number">{:.4f}</td>'
        '<td><div class="bar" aria-hidden="true">{}</div><div class="shares">{}</div></td></tr>'
    ).format(number, piece, token.probability, bar, said)


def _fills(count: int) -> str:
    """A colour and a pattern for each specialist that the page can tell apart; letters tell all apart."""
    kinds = min(count, len(_HUES))
    return "".join(
        f".s{i}{{background:{_PATTERNS[i]};background-color:hsl({_HUES[i]} 60% var(--fill))}}"
        for i in range(kinds)
    )


def _class(i: int) -> str:
    return f"s{i % len(_HUES)}"


def _letter(i: int) -> str:
    """A, B, …, Z, AA, AB, …"""
    letters = ""
    i += 1
    while i:
        i, digit = divmod(i - 1, len(_LETTERS))
        letters = _LETTERS[digit] + letters
    return letters


def _list(sentences: Sequence[str]) -> Markup:
    return Markup("").join(Markup("<li>{}</li>").format(sentence) for sentence in sentences)
