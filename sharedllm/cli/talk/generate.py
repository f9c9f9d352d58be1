"""``sharedllm generate``: continue a prompt, or answer it, through a running primary."""

from __future__ import annotations

import dataclasses
import secrets
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sharedllm.cli.network.options import ApiKeyFile, ServerUrl

if TYPE_CHECKING:
    from sharedllm.cli.talk.api import Api

app = typer.Typer(add_completion=False, rich_markup_mode=None)


Prompt = Annotated[str, typer.Argument(help="The text to continue, or to answer with --chat; - reads stdin.")]
AskedModel = Annotated[
    str | None,
    typer.Option(
        envvar="SHAREDLLM_MODEL",
        help="Which model; a file that no primary here serves is computed in this process.  "
        "[default: the one that is served]",
    ),
]
Chat = Annotated[bool, typer.Option("--chat", help="Answer as the model's chat template says.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Write no more tokens than this.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")]
TopP = Annotated[float, typer.Option(help="Draw from the likeliest tokens of this mass.")]
Seed = Annotated[int | None, typer.Option(help="The same seed draws the same text.")]
Stop = Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")]
Receipt = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Keep the answer's signed receipt, for `sharedllm receipt verify`."),
]


@app.command()
def generate(
    prompt: Prompt,
    url: ServerUrl = None,
    model: AskedModel = None,
    chat: Chat = False,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    stop: Stop = None,
    receipt: Receipt = None,
    api_key_file: ApiKeyFile = None,
) -> None:
    """Continue a prompt, or answer it, through a running primary.

    The text goes to standard output as it comes.

    Examples:

      sharedllm generate "The capital of France is" --max-tokens 8

      sharedllm generate --chat "Name three rivers."

      sharedllm generate "In the beginning" --model mixture --receipt answer.json

      sharedllm generate "In the beginning" --model small.ternary
    """
    from sharedllm.cli.talk.api import ApiFailed, connect, own_key

    text = sys.stdin.read() if prompt == "-" else prompt
    how: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
    how |= {key: value for key, value in (("seed", seed), ("stop", stop)) if value not in (None, [])}
    if url is None and model is not None and Path(model).is_file() and not _is_served(model):
        if receipt is not None:
            raise ApiFailed(f"No primary serves {model} here, and only a primary signs receipts; start one.")
        _here(model, text, chat, how)
        return
    api = connect(url, model, api_key_file)
    if receipt is not None:
        api = dataclasses.replace(api, client_key=own_key().public_bytes.hex())
    asked = [{"role": "user", "content": text}]
    try:
        identifier = _printed(api.chat(asked, **how) if chat else api.complete(text, **how))
    except KeyboardInterrupt:
        print()
        raise typer.Exit(130) from None
    print()
    if receipt is not None:
        _keep(receipt, api, identifier)


def _keep(receipt: Path, api: Api, identifier: str) -> None:
    """Write the receipt of an answer. Raises ``ApiFailed`` if there is none."""
    from sharedllm.cli.talk.api import ApiFailed
    from sharedllm.store import atomic

    if not identifier:
        raise ApiFailed(f"{api.url} gave no receipt; only a primary of SharedLLM does.")
    atomic.write_bytes(receipt, api.receipt(identifier))


def _is_served(model: str) -> bool:
    """Say whether this machine's primary runs, and serves a model of that name."""
    from sharedllm.cli.talk.api import ApiFailed, connect

    try:
        return model in connect(None, None, None).models()
    except ApiFailed:
        return False


def _here(model: str, text: str, chat: bool, how: Mapping[str, Any]) -> None:
    """Compute in this process what a primary would."""
    from sharedllm.cli.model import speak
    from sharedllm.model import Sampling

    print(f"No primary serves {model} here, so it is computed in this process.", file=sys.stderr)
    sampling = Sampling(**{"seed": secrets.randbits(31), **how, "stop": tuple(how.get("stop", ()))})
    speak(model, text, sampling, chat=chat)


def _printed(pieces: Generator[str, None, str]) -> str:
    """Print pieces as they come and return what the generator returns."""
    while True:
        try:
            print(next(pieces), end="", flush=True)
        except StopIteration as end:
            return str(end.value)
