"""The page of one bet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from markupsafe import Markup

from sharedllm.bets.criteria import must, quantity
from sharedllm.bets.figures import figure, html
from sharedllm.bets.index import Entry
from sharedllm.bets.markup import badge, code, fenced, markdown, pill, slug, table
from sharedllm.bets.page.provenance import difference, provenance
from sharedllm.bets.registration import Control, Criterion
from sharedllm.bets.result import Result, Rule

__all__ = ["bet_page"]

LEVELS = {
    "strict": "Strict: what the claim promises",
    "lenient": "Lenient: what would still be useful",
    "catastrophic": "Catastrophic: where the idea does harm",
}
HELD = {True: "✓ held", False: "✗ did not hold", None: "? could not be judged"}
HARM = {True: "✗ reached", False: "✓ not reached", None: "? could not be judged"}


def bet_page(entry: Entry, pages: Mapping[str, str]) -> str:
    """Return the page of ``entry`` as MyST Markdown; ``pages`` maps the ids of bets to page names."""
    about = entry.bet.editorial
    parts = [f"# {markdown(f'{about.id} · {about.title}')}", _raw(_head(entry)), *_notice(entry)]
    parts += [markdown(about.summary), "## Run it yourself", *_reproduce(entry)]
    parts += ["## The claim", _quote(entry.bet.registration.claim), *_seed(entry)]
    parts += ["## Criteria", _registered_line(entry), _raw(_criteria(entry.bet.registration.criteria))]
    parts += ["## Controls", *_controls(entry.bet.registration.controls)]
    parts += ["## What came out", *_outcomes(entry), *_figures(entry)]
    parts += ["## Provenance", *provenance(entry), "## Registered and run", *difference(entry)]
    parts += ["## Ledger", _raw(_ledger(entry)), "## Downloads", _raw(_downloads(entry))]
    parts += ["## What this does not cover", markdown(about.not_covered or "Nothing is stated yet.")]
    return "\n\n".join([*parts, *_links(entry, pages)]) + "\n"


def _raw(body: Markup) -> str:
    return fenced("{raw} html", str(body))


def _quote(text: str) -> str:
    return "> " + markdown(text).replace("\n\n", "\n>\n> ")


def _head(entry: Entry) -> Markup:
    """Return verdict and standing per regime: the first thing to read."""
    cells = []
    for regime in entry.bet.registration.regimes:
        now = entry.standing(regime)
        by = (now.event.by or "") if now.event else ""
        cells.append(
            Markup('<li><span class="regime">{}</span>{}{}</li>').format(
                regime, badge(entry.verdict(regime)), pill(now.word, by)
            )
        )
    return Markup('<ul class="bet-head" aria-label="Verdict and standing in each regime">{}</ul>').format(
        Markup("").join(cells)
    )


def _notice(entry: Entry) -> Iterator[str]:
    """Return the correction or retraction, above everything that it concerns."""
    if entry.notice:
        paragraphs = [p for p in entry.notice.split("\n\n") if p.strip()]
        body = Markup("").join(Markup("<p>{}</p>").format(" ".join(p.split())) for p in paragraphs)
        yield _raw(Markup('<div class="notice" role="note" aria-label="Notice">{}</div>').format(body))


def _reproduce(entry: Entry) -> Iterator[str]:
    regimes = list(entry.bet.registration.regimes)
    commands = [f"$ sharedllm bets run {entry.bet.id} --regime {regime}" for regime in regimes]
    yield fenced("console", "\n".join(commands))
    folder = f"catalogue/{entry.bet.editorial.chapter}/{entry.bet.folder.name}"
    yield "Or the notebook by itself:"
    yield fenced(
        "console", f"$ papermill {folder}/bet.ipynb \\\n    {entry.bet.id}.ipynb -p regime {regimes[0]}"
    )
    limits = {quantity(entry.bet.registration.plan(r).limit_s / 60, "minutes") for r in regimes}
    yield f"A run is stopped after {markdown(' or '.join(sorted(limits)))}."


def _seed(entry: Entry) -> Iterator[str]:
    about = entry.bet.editorial
    if about.seed_claim:
        yield "### What the seed said"
        yield "{.seed}\n" + _quote(about.seed_claim)
    if about.wording:
        yield "### What is wrong with that wording" if about.seed_claim else "### On the wording"
        yield markdown(about.wording)


def _registered_line(entry: Entry) -> str:
    event = next((e for e in entry.events if e.event == "registered" and e.bet == entry.bet.id), None)
    if event is None:
        return "Not registered yet: these criteria may still change, and no run can be decided by them."
    return f"Fixed on {event.at_utc[:10]}, in line {event.n} of the ledger, before any canonical run."


def _criteria(criteria: tuple[Criterion, ...]) -> Markup:
    rows = [
        (LEVELS[level].split(":")[0], _rule(c), _bound(level, must(c.rule, c.unit)))
        for level in LEVELS
        for c in criteria
        if c.level == level
    ]
    return table(". ".join(LEVELS.values()) + ".", ("Level", "Criterion", "Must be"), rows, kind="rules")


def _rule(rule: Control) -> Markup:
    return Markup('<strong class="rule">{}</strong> {} {}').format(
        _name(rule.name), rule.about, code(rule.expression)
    )


def _bound(level: str, text: str) -> str:
    """Turn “must be ≤ 1” into “≤ 1” under a heading that says so; a catastrophic bar is one not to reach."""
    short = text.removeprefix("must be ")
    return f"harm if {short}" if level == "catastrophic" else short


def _name(name: str) -> str:
    return name.replace("_", " ")


def _controls(controls: tuple[Control, ...]) -> Iterator[str]:
    if not controls:
        yield "No control was registered, so nothing could have made a run void."
        return
    yield "If one of these fails, the run is void, whatever the criteria say."
    rows = [("Control", _rule(c), _bound("control", must(c.rule, c.unit))) for c in controls]
    columns = ("Level", "What it guards against", "Must be")
    yield _raw(
        table("Arms that would expose another cause for the same numbers", columns, rows, kind="rules")
    )


def _outcomes(entry: Entry) -> Iterator[str]:
    if not entry.results:
        yield "Nothing yet: no run has been recorded."
    for regime, result in entry.results.items():
        yield f"### {markdown(f'In the regime {regime}')}"
        line = Markup("<p>{} {}</p>").format(badge(result.verdict), _fate(entry, regime, result))
        yield _raw(line)
        yield _raw(_judged(f"Criteria in the regime {regime}", result.criteria))
        if result.controls:
            yield _raw(_judged(f"Controls in the regime {regime}", result.controls))
        yield from (f"- {markdown(note)}" for note in result.notes)
        yield _raw(_metrics(regime, result))
    missing = [r for r in entry.bet.registration.regimes if r not in entry.results]
    if missing and entry.results:
        yield f"Not run yet in: {markdown(', '.join(missing))}."


def _fate(entry: Entry, regime: str, result: Result) -> str:
    if result.fate != "canonical":
        return f"from a run that is {result.fate}, and decides nothing."
    decided = entry.verdict(regime) != "UNRUN"
    return f"decided on {entry.decided_on(regime)}." if decided else "by a canonical run; not decided yet."


def _judged(caption: str, rules: list[Rule]) -> Markup:
    """Return rules with both renderings, what must be and what was."""
    rows = [
        (
            _name(rule.name),
            rule.level,
            _bound(rule.level, rule.must),
            rule.was.removeprefix("was "),
            Markup('<span class="held">{}</span>').format(
                (HARM if rule.level == "catastrophic" else HELD)[rule.held]
            ),
        )
        for rule in rules
    ]
    return table(caption, ("Name", "Level", "Must be", "Was", "Outcome"), rows, kind="outcomes")


def _metrics(regime: str, result: Result) -> Markup:
    rows = [(code(name), quantity(value)) for name, value in result.metrics.items() if _plain(value)]
    per_seed = [(code(f"{name}, per seed"), quantity(v)) for name, v in result.per_seed.items() if _plain(v)]
    body = table(f"Recorded in the regime {regime}", ("Metric", "Value"), [*rows, *per_seed], kind="numbers")
    return Markup("<details><summary>All recorded numbers, {}</summary>{}</details>").format(regime, body)


def _plain(value: object) -> bool:
    """Say whether a value is a number or a flat group of them; deeper tables stay in the JSON."""
    inner = list(value.values()) if isinstance(value, dict) else value
    values = inner if isinstance(inner, list) else [inner]
    return all(v is None or isinstance(v, bool | int | float) for v in values)


def _figures(entry: Entry) -> Iterator[str]:
    shown = [(regime, series) for regime, result in entry.results.items() for series in result.series]
    if shown:
        yield "## Figures"
    last = ""
    for n, (regime, series) in enumerate(shown, start=1):
        if regime != last:
            yield f"### {markdown(f'Figures, regime {regime}')}"
            last = regime
        yield _raw(html(figure(series), f"figure-{n}-{slug(series.name)}"))


def _ledger(entry: Entry) -> Markup:
    rows = [
        (
            e.n,
            Markup('<span class="nowrap">{}</span>').format(e.at_utc[:10]),
            e.event,
            e.regime or "all",
            badge(e.verdict) if e.verdict else "–",
            " ".join(part for part in (e.reason, f"by {e.by}" if e.by else "") if part) or "–",
            code(e.commit[:10]),
        )
        for e in entry.events
        if e.bet == entry.bet.id
    ]
    columns = ("Line", "Date", "Event", "Regime", "Verdict", "Reason", "Commit")
    caption = "Every line of the ledger that concerns this bet"
    return table(caption, columns, rows or [("none yet", *["–"] * 6)])


def _downloads(entry: Entry) -> Markup:
    base = f"../files/{entry.bet.folder.name}"
    files = [("bet.ipynb", "the notebook, without outputs"), ("bet.toml", "the registration")]
    for regime, result in entry.results.items():
        files.append((f"results/{regime}.json", f"the result in the regime {regime}"))
        if result.code.executed_sha256:
            files.append((f"results/{regime}.ipynb", f"the executed notebook of the regime {regime}"))
    items = [
        Markup('<li><a href="{}/{}" download="{}-{}">{}</a>: {}</li>').format(
            base, name, entry.bet.id, name.replace("/", "-"), name, what
        )
        for name, what in files
    ]
    return Markup("<ul>{}</ul>").format(Markup("").join(items))


def _links(entry: Entry, pages: Mapping[str, str]) -> Iterator[str]:
    about = entry.bet.editorial
    bets = [f"[{bet}]({pages[bet]}.md)" if bet in pages else markdown(bet) for bet in about.bets]
    rows = [
        ("Rooms of the code", [markdown(room) for room in about.rooms]),
        ("Related bets", bets),
        ("Sources", [markdown(source) for source in about.sources]),
    ]
    if any(values for _, values in rows):
        yield "## Related"
        yield "\n".join(f"- {name}: {', '.join(values)}" for name, values in rows if values)
