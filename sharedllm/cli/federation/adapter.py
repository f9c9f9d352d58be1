"""``sharedllm adapter``: a base becomes somebody's own, on their own machine, and is told apart from luck."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sharedllm.cli.progress import learning, showing

if TYPE_CHECKING:
    from sharedllm.adapters import Header
    from sharedllm.adapters.personal import Reading

_LISTED = 12

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Make a base your own: fit it to your text, and see whether that helped.\n\n"
    "Examples:\n\n"
    "  sharedllm adapter fit my-notes/ --name me\n\n"
    "  sharedllm adapter list\n\n"
    "  sharedllm adapter inspect me",
)

Name = Annotated[str, typer.Argument(help="The name of an adapter.")]
NameOrFile = Annotated[str, typer.Argument(help="The name of an adapter, or an adapter file.")]


@app.command()
def fit(
    paths: Annotated[list[Path], typer.Argument(help="Text files, or folders; read here, sent nowhere.")],
    name: Annotated[str, typer.Option(help="What the adapter will be called.")] = "me",
    base: Annotated[str, typer.Option(help="The base to make your own.")] = "smollm2-135m",
    method: Annotated[
        str, typer.Option(help="norm (smallest, served to many at once), norm+bias, lora, full, unigram.")
    ] = "norm",
    precision: Annotated[str, typer.Option(help="Of the file: fp32, fp16 or int8.")] = "int8",
    keep: Annotated[bool, typer.Option("--keep", help="Save it even if it did not help.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an adapter of that name.")] = False,
) -> None:
    """Fit an adapter to your text, judge it on text of yours that it never saw, and keep it if it helped.

    Example: sharedllm adapter fit my-notes/ --name me
    """
    from sharedllm import store
    from sharedllm.adapters import library, personal

    _refuse_taken(name, replace)
    reading = personal.read_texts(paths)
    _say_what_was_read(reading)
    personal.refuse_tiny(reading.documents)
    with showing() as progress:
        tokenizer = store.opened_tokenizer(store.resolve(base, progress=progress))
        personal.parts(tokenizer.encode, reading.documents, personal.Plan(), method)
        loaded = store.load(base, progress=progress)
    with learning() as told:
        made = personal.fit_text(loaded, reading.documents, method=method, precision=precision, progress=told)
    for line in personal.report(made):
        typer.echo(line)
    if not (made.gain.helped or keep):
        typer.echo("Nothing was saved; --keep saves it all the same.")
        raise typer.Exit(1)
    path = library.save(name, made.adapter, made.about(), precision)
    typer.echo(f"Saved as {name}: {path.stat().st_size:,} bytes in {path}.")


def _refuse_taken(name: str, replace: bool) -> None:
    from sharedllm.adapters import library
    from sharedllm.errors import UnknownName

    library.check_name(name)
    if name in library.names() and not replace:
        raise UnknownName(f"There is an adapter {name!r} already; give --replace, or another --name.")


def _say_what_was_read(reading: Reading) -> None:
    n_bytes = sum(document.n_bytes for document in reading.documents)
    typer.echo(f"Read {len(reading.documents)} texts, {n_bytes:,} bytes.", err=True)
    for skipped in reading.skipped[:_LISTED]:
        typer.echo(f"Left out {skipped.path}: it {skipped.why}.", err=True)
    if len(reading.skipped) > _LISTED:
        typer.echo(f"Left out {len(reading.skipped) - _LISTED} more.", err=True)


@app.command("list")
def list_() -> None:
    """List your adapters: what kind each is, of which base, its bytes, and what it gained.

    Example: sharedllm adapter list
    """
    from sharedllm.adapters import library
    from sharedllm.errors import BadAdapter

    names = library.names()
    if not names:
        typer.echo("There are no adapters yet; make one with `sharedllm adapter fit FOLDER`.")
    width = max(map(len, names), default=0)
    for name in names:
        try:
            typer.echo(f"{name:<{width}}  {_line(library.about(name))}")
        except BadAdapter as error:
            typer.echo(f"{name:<{width}}  damaged: {error}")


def _line(said: Header) -> str:
    gain = said.about.get("gain_nats")
    gained = f"{gain:+.3f} nats per token gained" if isinstance(gain, float) else "gain unknown"
    base = said.about.get("base") or said.base_sha256[:12]
    return _printable(f"{said.method:<9}  {said.precision}  {said.n_bytes:>11,} bytes  of {base}  {gained}")


def _printable(text: str) -> str:
    """Leave out what would steer a terminal: an adapter's file may come from anybody."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


@app.command()
def inspect(name: NameOrFile) -> None:
    """Show what an adapter is: method, base, bytes, what it gained, and what each precision costs.

    Example: sharedllm adapter inspect me
    """
    from sharedllm.adapters import header, library, read
    from sharedllm.adapters.personal import verdict

    path = Path(name) if Path(name).is_file() else library.path_of(name)
    said = header(path)
    adapter = read(path, said.base_sha256)
    facts = {
        "file": str(path),
        "method": said.method,
        "base": f"{said.about.get('base', 'unnamed')}, weights sha256 {said.base_sha256}",
        "numbers": f"{adapter.numbers:,} in {len(adapter.tensors)} tensors",
        "bytes": f"{said.n_bytes:,} as {said.precision}",
    }
    for key, value in {**said.about, **facts}.items():
        typer.echo(_printable(f"{key:<22} {value}"))
    with contextlib.suppress(KeyError, TypeError, ValueError):  # a file of another maker says other things
        typer.echo(_printable(verdict(said.about)))


@app.command()
def export(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Where the two files will be.")],
    base: Annotated[str, typer.Option(help="The base that it was fitted on.")] = "smollm2-135m",
) -> None:
    """Write a lora adapter as a folder that peft loads on transformers' model of the same weights.

    Example: sharedllm adapter export me me-for-peft/
    """
    from sharedllm import store
    from sharedllm.adapters import library
    from sharedllm.adapters.exchange import write_folder

    adapter = library.load(name)
    with showing() as progress:
        write_folder(folder, adapter, store.load(base, progress=progress))
    typer.echo(f"Wrote {name} to {folder}.")


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A folder that peft wrote, with a LoRA adapter.")],
    name: Annotated[str, typer.Option(help="What the adapter will be called.")],
    base: Annotated[str, typer.Option(help="The base that it was fitted on.")] = "smollm2-135m",
    replace: Annotated[bool, typer.Option("--replace", help="Replace an adapter of that name.")] = False,
) -> None:
    """Keep a LoRA adapter that peft wrote. Its folder does not say for which weights: see that the base fits.

    Example: sharedllm adapter import their-lora/ --name theirs
    """
    from sharedllm import store
    from sharedllm.adapters import library
    from sharedllm.adapters.exchange import read_folder

    _refuse_taken(name, replace)
    with showing() as progress:
        adapter = read_folder(folder, store.load(base, progress=progress))
    path = library.save(name, adapter, {"base": base})
    typer.echo(f"Saved as {name}: {path.stat().st_size:,} bytes in {path}.")


@app.command()
def remove(name: Name) -> None:
    """Delete one of your adapters for good.

    Example: sharedllm adapter remove me
    """
    from sharedllm.adapters import library

    library.remove(name)
    typer.echo(f"Removed {name}.")
