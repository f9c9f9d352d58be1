"""``sharedllm book``: write the generated pages beside the committed ones, and build the book.

Nothing is executed and nothing is fetched; a warning of the builder is an error.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from sharedllm.bets.index import (
    CHAPTERS,
    Entry,
    SeedClaim,
    catalogue_document,
    cite,
    filters_css,
    index,
    legend,
    seed_claims,
    standings,
    tally,
)
from sharedllm.bets.ledger import Ledger
from sharedllm.bets.markup import fenced
from sharedllm.bets.page import bet_page, status_page
from sharedllm.bets.registration import Bet, Catalogue, find_catalogue
from sharedllm.bets.result import read_result
from sharedllm.errors import BadBet
from sharedllm.store import atomic

app = typer.Typer(add_completion=False, rich_markup_mode=None)

MARKER = "<!-- generated: {} -->"
CHAPTERS_MARKER = "  # generated: chapters\n"


@app.command()
def build(
    catalogue: Annotated[Path | None, typer.Option(help="A checkout; default: the one you are in.")] = None,
    out: Annotated[Path | None, typer.Option(help="Default: build/book in the checkout.")] = None,
) -> None:
    """Build the book, without network, and print where it is."""
    found = find_catalogue(catalogue)
    target = out or found.repository / "build" / "book"
    assemble(found, target)
    builder = Path(sys.executable).with_name("jupyter-book")
    if not builder.exists():
        raise BadBet(f"{builder} is missing: pip install 'sharedllm[book]', then build again.")
    command = [str(builder), "build", "-W", "-n", "--keep-going", str(target)]
    print(f"Building the book in {target} …", flush=True)
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    page = target / "_build" / "html" / "index.html"
    if ran.returncode or not page.is_file():
        print(ran.stderr.strip() or ran.stdout[-4000:], file=sys.stderr)
        print("sharedllm: The book was not built; the warnings above say where to look.", file=sys.stderr)
        raise typer.Exit(ran.returncode or 1)
    print(f"The book is built. Open {page.resolve()}")


def assemble(catalogue: Catalogue, target: Path) -> None:
    """Write all sources of the book into ``target``, replacing what was there.

    Raises ``BadBet`` for a malformed bet or result, and for a ``target`` that is not a folder of ours.
    """
    sources = catalogue.repository / "book"
    if not (sources / "_config.yml").is_file():
        raise BadBet(f"{sources} holds no book. Run this in a checkout of SharedLLM.")
    ours = target == catalogue.repository / "build" / "book" or (target / "_config.yml").is_file()
    if not ours and target.exists() and any(target.iterdir()):
        raise BadBet(f"{target} is not empty and holds no book; name another folder with --out.")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(sources, target)
    entries = read_entries(catalogue)
    seed = catalogue.root / "seed.toml"
    claims = seed_claims(seed.read_text(encoding="utf-8")) if seed.is_file() else ()
    _fill(target, entries, claims)
    pages = {entry.bet.id: entry.bet.folder.name for entry in entries}
    for entry in entries:
        _write(target / "bets" / f"{entry.bet.folder.name}.md", bet_page(entry, pages))
        _copy_files(entry.bet, target / "extra" / "files" / entry.bet.folder.name)
    toc = target / "_toc.yml"
    _write(toc, toc.read_text(encoding="utf-8").replace(CHAPTERS_MARKER, chapters_toc(entries)))
    _write(target / "_static" / "filters.css", filters_css(entries, claims))
    document = json.dumps(catalogue_document(entries, claims), indent=1, ensure_ascii=False, allow_nan=False)
    _write(target / "extra" / "catalogue.json", document + "\n")


def read_entries(catalogue: Catalogue) -> list[Entry]:
    """Read every bet with its ledger lines, results and notice."""
    events = Ledger(catalogue.ledger).read()
    entries = []
    for bet in catalogue.bets():
        files = {path.stem: path for path in bet.results.glob("*.json")}
        results = {r: read_result(files[r]) for r in bet.registration.regimes if r in files}
        notice = bet.folder / "NOTICE.md"
        words = notice.read_text(encoding="utf-8") if notice.is_file() else ""
        entries.append(Entry(bet, tuple(e for e in events if e.bet == bet.id), results, words))
    return entries


def chapters_toc(entries: list[Entry]) -> str:
    """Return one part of the table of contents per chapter that has bets."""
    named = sorted({e.bet.editorial.chapter for e in entries} - set(CHAPTERS))
    lines = []
    for chapter in (*CHAPTERS, *named):
        mine = [e.bet.folder.name for e in entries if e.bet.editorial.chapter == chapter]
        if mine:
            lines += [f"  - caption: Bets on {chapter}", "    chapters:"]
            lines += [f"      - file: bets/{name}" for name in mine]
    return "".join(line + "\n" for line in lines)


def _fill(target: Path, entries: list[Entry], claims: tuple[SeedClaim, ...]) -> None:
    """Put generated fragments where the committed pages ask for them."""
    fragments = {
        "index": index(entries, claims),
        "legend": legend(),
        "standings": standings(),
        "status": status_page(entries),
        "tally": tally(entries, claims),
    }
    by_id = {entry.bet.id: entry for entry in entries}
    for page in sorted(target.rglob("*.md")):
        root = "../" * (len(page.relative_to(target).parts) - 1)
        text = cite(page.read_text(encoding="utf-8"), by_id, root)
        for name, fragment in fragments.items():
            text = text.replace(MARKER.format(name), fenced("{raw} html", str(fragment)))
        _write(page, text)


def _copy_files(bet: Bet, target: Path) -> None:
    """Copy what a page offers for download."""
    results = [p for p in sorted(bet.results.glob("*")) if p.suffix in (".json", ".ipynb")]
    for path in (bet.notebook, bet.folder / "bet.toml", *results):
        if path.is_file():
            copy = target / path.relative_to(bet.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, text.encode())
