"""``sharedllm model``: which models there are, what one is made of, whether it is whole, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sharedllm.cli.progress import showing

if TYPE_CHECKING:
    from sharedllm.model import Sampling

Name = Annotated[str, typer.Argument(help="A known name, such as smollm2-135m.")]
NameOrPath = Annotated[
    str, typer.Argument(help="A known name, a GGUF or ternary file, a model folder, or a repository.")
]

_SCHEME = "How trits are chosen: rounded; calibrated on text; or planes, two trits for each weight, likewise."
_DESTROYED = (
    "{name} was not trained with ternary weights, and rounding alone destroys such a model: SmolLM2-135M "
    "goes from 1.2 to more than 5 bits per byte. Calibrated on text it loses far less (--scheme calibrated "
    "or planes), and least loses a model that was trained to be ternary: sharedllm train toy --ternary."
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Fetch, convert, inspect and try models.\n\n"
    "Examples:\n\n"
    "  sharedllm model list\n\n"
    "  sharedllm model fetch smollm2-135m\n\n"
    "  sharedllm model export smollm2-135m --format ternary\n\n"
    '  sharedllm model generate smollm2-135m --chat "Name three rivers."',
)


@app.command("list")
def list_() -> None:
    """List the models that are known by name, where they come from, and whether they are here.

    Example: sharedllm model list
    """
    from sharedllm import store

    known = store.names()
    width = max(len(model.name) for model in known)
    for model in known:
        typer.echo(f"{model.name:<{width}}  {'here' if model.present else 'not here':<8}  {model.origin}")


@app.command()
def fetch(name: NameOrPath) -> None:
    """Fetch a model and convert it into the store; later loads map it and work offline.

    Example: sharedllm model fetch smollm2-135m
    """
    from sharedllm import store

    with showing() as progress:
        manifest = store.resolve(name, progress=progress)
    typer.echo(f"{manifest.name} is in {store.home()}: {manifest.sizes['weights']:,} bytes of weights.")


@app.command()
def show(name: NameOrPath) -> None:
    """Show a model's shape, parameters, bytes, hashes, licence and provenance (fetching it if need be).

    Example: sharedllm model show smollm2-135m
    """
    from sharedllm import store

    with showing() as progress:
        loaded = store.load(name, progress=progress)
    manifest = loaded.manifest
    sizes = manifest.sizes
    facts = {
        "name": manifest.name,
        "manifest sha256": manifest.sha256,
        "licence": manifest.licence,
        "parameters": f"{sum(weight.numel() for weight in loaded.model.parameters()):,}",
        "weights": f"{sizes['weights']:,} bytes as {manifest.dtype}, sha256 {manifest.weights_sha256}",
        "tokenizer": f"{loaded.tokenizer.vocab_size:,} tokens, sha256 {manifest.tokenizer_sha256}",
        "chat template": "yes" if loaded.tokenizer.chat_template else "no",
    }
    facts |= {f"config.{key}": str(value) for key, value in manifest.config.to_dict().items()}
    facts |= {f"provenance.{key}": str(value) for key, value in manifest.provenance.items()}
    for key, value in facts.items():
        typer.echo(f"{key:<22} {value}")


@app.command()
def generate(
    name: NameOrPath,
    prompt: Annotated[str, typer.Argument(help="The text to continue, or to answer with --chat.")],
    chat: Annotated[bool, typer.Option("--chat", help="Answer as the model's chat template says.")] = False,
    max_tokens: Annotated[int, typer.Option(help="Write no more tokens than this.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Draw from the k likeliest tokens; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens of this mass.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed draws the same text.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")] = None,
) -> None:
    """Write what the model says after a prompt, as it comes, to standard output.

    Example: sharedllm model generate smollm2-135m "The capital of France is" --max-tokens 8
    """
    from sharedllm import model

    sampling = model.Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        max_tokens=max_tokens,
        stop=tuple(stop or ()),
    )
    speak(name, prompt, sampling, chat=chat)


def speak(name: str, prompt: str, sampling: Sampling, *, chat: bool) -> None:
    """Load a model into this process, and write what it says as it comes."""
    from sharedllm import model, store

    with showing() as progress:
        loaded = store.load(name, progress=progress)

    def write(row: int, token: int, piece: str) -> None:
        typer.echo(piece, nl=False)

    tokenizer = loaded.tokenizer
    question = tokenizer.chat_tokens([{"role": "user", "content": prompt}]) if chat else prompt
    model.generate(loaded.model, tokenizer, [question], sampling, write)
    typer.echo()


@app.command()
def export(
    name: NameOrPath,
    form: Annotated[Literal["ternary"], typer.Option("--format", help="What to make of it.")] = "ternary",
    out: Annotated[
        Path | None, typer.Option(help="The file to write.  [default: the model's name, with .ternary]")
    ] = None,
    scheme: Annotated[str, typer.Option(help=_SCHEME)] = "rounded",
    table: Annotated[
        Literal["int8", "int4", "fp16", "fp32"], typer.Option(help="As what embedding and head are kept.")
    ] = "int8",
    coding: Annotated[
        Literal["none", "zstd"], typer.Option(help="Write the file's coded form, the smallest to send, too.")
    ] = "none",
    documents: Annotated[
        int, typer.Option(min=0, help="Held-out documents of each domain to read before and after; 0: none.")
    ] = 4,
) -> None:
    """Write a model as one small file, and say its bytes beside what it has lost.

    Example: sharedllm model export smollm2-135m --format ternary --out small.ternary
    """
    from sharedllm import store
    from sharedllm.cli import exporting
    from sharedllm.cli.progress import learning

    exporting.refuse_unknown(scheme)
    with showing() as progress:
        loaded = store.load(name, progress=progress)
    path = out or Path(f"{loaded.manifest.name}.{form}")
    ready = loaded.manifest.dtype == form
    if ready:
        typer.echo(f"{loaded.manifest.name} is ternary already, so its file is copied as it is.", err=True)
    elif scheme == "rounded":
        typer.echo(_DESTROYED.format(name=loaded.manifest.name), err=True)
    with learning() as report:
        exporting.write(loaded, scheme, table, path, report)
        typer.echo(f"{path}: {path.stat().st_size:,} bytes, {store.sha256_of(path)}")
        typer.echo("\n".join(exporting.parts(path)))
        if coding == "zstd":
            coded = exporting.code(path)
            typer.echo(f"{coded}: {coded.stat().st_size:,} bytes")
        if documents:
            models = {"before": loaded} if not ready else {}
            models["after"] = store.load(path)
            typer.echo("\n".join(exporting.losses(models, documents, report)))


@app.command()
def verify(name: Name) -> None:
    """Read every byte of a model in the store and compare it with its hashes.

    Example: sharedllm model verify smollm2-135m
    """
    from sharedllm import store

    manifest = store.verify(name)
    typer.echo(f"{manifest.name} is whole: {sum(manifest.sizes.values()):,} bytes hash to what they should.")


@app.command()
def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove weights that no model, specialist or adapter names any more and no process uses.

    Example: sharedllm model clean --dry-run
    """
    from sharedllm import store

    found = store.collect(dry_run=dry_run)
    for path in found.removed:
        typer.echo(path)
    verb = "would be" if dry_run else "were"
    used = f" {len(found.in_use)} more are in use and stay." if found.in_use else ""
    typer.echo(f"{len(found.removed)} files of {found.n_bytes:,} bytes {verb} removed.{used}")
