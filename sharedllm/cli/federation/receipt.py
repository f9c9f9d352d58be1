"""``sharedllm receipt``: verify offline what a node says it served, and see who said which token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sharedllm.attribution.receipts import Token, Verified

_BAR = 10
_NAMED = 3
_MOST_BYTES = 1 << 26

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Verify receipts of answers, and see who said which token.\n\n"
    "Examples:\n\n"
    "  sharedllm receipt verify answer.json\n\n"
    "  sharedllm receipt show answer.json\n\n"
    "  sharedllm receipt show answer.json --html answer.html\n\n"
    "  sharedllm receipt acknowledge answer.json",
)

File = Annotated[
    Path, typer.Argument(help="A receipt, as GET /v1/sharedllm/receipts/REQUEST of a primary gave it.")
]
LogKey = Annotated[
    str | None,
    typer.Option(
        help="The log's key, or its node's in hex, that you know from elsewhere, such as `sharedllm status` "
        "or GET /v1/sharedllm/log: it must be this."
    ),
]


@app.command()
def verify(
    file: File,
    log_key: LogKey = None,
    client_key: Annotated[
        str | None, typer.Option(help="Your public key in hex: the receipt must be issued to it.")
    ] = None,
) -> None:
    """Verify a receipt offline: nobody is asked, and the sentences say what that proves and what it does not.

    Example: sharedllm receipt verify answer.json
    """
    from sharedllm.attribution.receipts import verify as verified

    good = verified(_read(file), log_key=log_key, client_key=client_key)
    typer.echo(f"{file} is good. It proves:")
    for sentence in good.proves:
        typer.echo(f"  ✓ {sentence}")
    typer.echo("It leaves open:")
    for sentence in good.leaves_open:
        typer.echo(f"  ? {sentence}")


@app.command()
def show(
    file: File,
    html: Annotated[Path | None, typer.Option(help="Write a page of its own to this file instead.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Show tokens as text, with this model's tokenizer, if it is here.")
    ] = None,
    log_key: LogKey = None,
) -> None:
    """Show who said which token of an answer, after verifying its receipt.

    Example: sharedllm receipt show answer.json
    """
    from sharedllm.attribution.receipts import verify as verified

    good = verified(_read(file), log_key=log_key)
    pieces = _pieces(good, model)
    if html is not None:
        from sharedllm.cli.federation.receipt_page import page
        from sharedllm.store import atomic

        atomic.write_bytes(html, page(good, pieces).encode())
        typer.echo(f"{html} shows {len(good.answer.tokens):,} tokens; open it in a browser.")
        return
    head = good.answer.head
    typer.echo(f"{head.model}, request {head.request_id}: {', '.join(head.specialists)} by {head.rule}")
    typer.echo(f"{'':>5} {'token':<18} {'p':>6}  responsibilities")
    for number, (token, piece) in enumerate(zip(good.answer.tokens, pieces, strict=True)):
        typer.echo(f"{number:>5} {piece:<18} {token.probability:6.4f}  {_bars(head.specialists, token)}")
    ended = good.answer.finish_reason or "the log holds no end of it"
    typer.echo(f"{len(pieces):,} tokens; ended: {ended}. Entry {good.index:,} of {good.checkpoint.origin}.")


@app.command()
def acknowledge(file: File) -> None:
    """Countersign your receipt, in its place, which proves to anyone that you had the answer.

    It must be bound to your key, as those of `sharedllm generate --receipt` are.

    Example: sharedllm receipt acknowledge answer.json
    """
    from sharedllm.attribution.receipts import acknowledged
    from sharedllm.cli.talk.api import own_key
    from sharedllm.store import atomic

    key = own_key()
    atomic.write_bytes(file, acknowledged(_read(file), key.private))
    typer.echo(f"{file} is countersigned with your key {key.public_bytes.hex()}.")


def _bars(specialists: tuple[str, ...], token: Token) -> str:
    """The largest responsibilities as bars, each with its name and number."""
    from sharedllm.attribution.receipts import BILLION

    order = sorted(range(len(specialists)), key=lambda i: -token.shares[i])
    shown = []
    for i in order[:_NAMED]:
        share = token.shares[i] / BILLION
        full = round(share * _BAR)
        shown.append(f"{specialists[i]} {'█' * full}{'░' * (_BAR - full)} {share:.3f}")
    left = sum(token.shares[i] for i in order[_NAMED:]) / BILLION
    if len(order) > _NAMED:
        shown.append(f"{len(order) - _NAMED} others {left:.3f}")
    return "  ".join(shown)


def _pieces(good: Verified, model: str | None) -> list[str]:
    """Each token as quoted text where there is a tokenizer, else as its number."""
    ids = [token.entry.token for token in good.answer.tokens]
    if model is None:
        return [f"#{token}" for token in ids]
    from sharedllm import store

    tokenizer = store.opened_tokenizer(store.resolve(model))
    return [repr(tokenizer.decode([token])) for token in ids]


def _read(file: Path) -> bytes:
    from sharedllm.errors import BadReceipt

    try:
        with file.open("rb") as opened:
            return opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BadReceipt(
            f"{file} can't be read ({error.strerror}); name a file that holds a receipt."
        ) from None
