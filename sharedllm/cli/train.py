"""``sharedllm train``: train a base from its recipe, resuming where the same command stopped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from sharedllm.cli.diloco import EXAMPLES, diloco
from sharedllm.errors import BadRecipe
from sharedllm.store import atomic, canonical_json, home, load
from sharedllm.training import (
    THIRTY_M,
    THIRTY_M_TERNARY,
    TOY,
    TOY_TERNARY,
    Prepared,
    Recipe,
    budget_for,
    domain_losses,
    keep,
    live,
    prepare,
    train_base,
)

_SECONDS_PER_MINUTE = 60

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Train a base model from a recipe.\n\n"
    "Examples:\n\n"
    "  sharedllm train toy\n\n"
    "  sharedllm train toy --minutes 2 --seed 1\n\n"
    "  sharedllm train toy --ternary\n\n"
    "  sharedllm train 30m --minutes 120 --device cuda\n\n"
    "  sharedllm train diloco --workers 4 --byzantine 1",
)
app.command("diloco", epilog=EXAMPLES)(diloco)

Minutes = Annotated[
    float | None, typer.Option(help="Time budget; becomes a token budget, measured here first.")
]
Tokens = Annotated[int | None, typer.Option(help="Token budget instead of the recipe's.")]
Seed = Annotated[int, typer.Option(help="Decides the initial weights and the order of the text.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Folder for checkpoints; by default one per command, in the store.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")]
Ternary = Annotated[
    bool, typer.Option("--ternary", help="Ternary weights from the first step; kept as a ternary file.")
]


@app.command()
def toy(
    minutes: Minutes = None,
    tokens: Tokens = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    device: Device = "cpu",
    ternary: Ternary = False,
) -> None:
    """Train the toy base: 3.2 M parameters, at most five minutes on two cores (``toy-ternary``: six)."""
    _run(
        "toy-ternary" if ternary else "toy",
        TOY_TERNARY if ternary else TOY,
        minutes,
        tokens,
        seed,
        checkpoint,
        device,
    )


@app.command("30m")
def thirty_m(
    minutes: Minutes = None,
    tokens: Tokens = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    ternary: Ternary = False,
) -> None:
    """Train the seed's FractalMoE for as long as it is given; days on a CPU, minutes on a large GPU."""
    _run("30m", THIRTY_M_TERNARY if ternary else THIRTY_M, minutes, tokens, seed, checkpoint, device)


def _run(
    name: str,
    recipe: Recipe,
    minutes: float | None,
    tokens: int | None,
    seed: int,
    checkpoint: Path | None,
    device: str,
) -> None:
    if minutes is not None and tokens is not None:
        raise BadRecipe("--minutes and --tokens are two budgets for one run; give one of them.")
    console = Console(stderr=True)
    folder = checkpoint or home() / "checkpoints" / _label(recipe.name, minutes, tokens, seed)
    console.print(f"{name}: preparing the text and the tokenizer (checkpoints in {folder})", soft_wrap=True)
    prepared = prepare(name, seed=seed, device=_device(device))
    recipe = budgeted(recipe, minutes, tokens, folder, prepared)
    with live(console, name) as on_step:
        report = train_base(prepared, recipe, seed=seed, checkpoint=folder / "run.pt", on_step=on_step)
    manifest = keep(name, prepared, recipe, report, seed=seed)
    validation = domain_losses(load(name).model, prepared.tokenizer, "validation", window=recipe.window)
    table = Table(title="Held-out loss in bits per byte", title_justify="left")
    for column in ("domain", "validation", "test"):
        table.add_column(column, justify="left" if column == "domain" else "right")
    for domain, loss in manifest.provenance["test_bits_per_byte"].items():
        table.add_row(domain, f"{validation[domain]:.3f}", f"{loss:.3f}")
    Console().print(table)
    typer.echo(f"{report.tokens:,} tokens in {report.seconds:.0f} s ({report.tok_per_s:,.0f} tok/s)")
    typer.echo(f"saved as {name} in {home() / 'models'}; weights {manifest.weights_sha256[:12]}")


def _label(name: str, minutes: float | None, tokens: int | None, seed: int) -> str:
    """Name the default folder after what was asked for, so that another command starts another run."""
    budget = (
        f"{minutes:g}min" if minutes is not None else f"{tokens}tokens" if tokens is not None else "recipe"
    )
    return f"{name}-seed{seed}-{budget}"


def budgeted(
    recipe: Recipe, minutes: float | None, tokens: int | None, folder: Path, prepared: Prepared
) -> Recipe:
    """Apply the budget; a measured one is written down, so that a resumed run counts to the same token."""
    if tokens is not None:
        return dataclasses.replace(recipe, tokens=tokens)
    if minutes is None:
        return recipe
    written = folder / "budget.json"
    if not written.exists():
        measured = budget_for(minutes * _SECONDS_PER_MINUTE, prepared, recipe)
        atomic.write_bytes(written, canonical_json({"minutes": minutes, "tokens": measured.tokens}))
    budget = json.loads(written.read_bytes())
    if budget["minutes"] != minutes:
        raise BadRecipe(
            f"The run in {folder} was given {budget['minutes']:g} minutes, now {minutes:g}; resume it with "
            "the same, or give another folder."
        )
    return dataclasses.replace(recipe, tokens=budget["tokens"])


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked != "cpu" and not asked.startswith("cuda"):
        raise BadRecipe(f"The device is {asked!r}; give cpu, cuda or auto.")
    return asked
