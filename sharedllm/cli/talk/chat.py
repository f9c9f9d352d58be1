"""``sharedllm chat``: talk with the model in the terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from sharedllm.cli.network.options import ApiKeyFile, ServerUrl

if TYPE_CHECKING:
    from sharedllm.cli.talk.api import Api

_HELP = """\
/new    forget the conversation and begin another
/help   this list
/quit   leave (so does Ctrl-D)
Ctrl-C stops an answer; what was said stays."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def chat(
    url: ServerUrl = None,
    model: Annotated[
        str | None,
        typer.Option(envvar="SHAREDLLM_MODEL", help="Which model.  [default: the one that is served]"),
    ] = None,
    system: Annotated[str, typer.Option(help="What the model is told first.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")] = 0.7,
    api_key_file: ApiKeyFile = None,
) -> None:
    """Talk with the model in the terminal.

    Ctrl-C stops an answer, Ctrl-D leaves.

    Example: sharedllm chat
    """
    from sharedllm.cli.talk.api import connect

    api = connect(url, model, api_key_file)
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # arrows and history in input()
        print(f"{api.model} at {api.url}. /help lists commands.")
    first = [{"role": "system", "content": system}] if system else []
    messages = list(first)
    while (said := _ask(at_terminal)) is not None:
        match said.strip():
            case "":
                continue
            case "/quit":
                return
            case "/help":
                print(_HELP)
            case "/new":
                messages = list(first)
                print("A new conversation.")
            case command if command.startswith("/") and " " not in command:
                print(f"There is no command {command}; /help lists them.")
            case text:
                messages.append({"role": "user", "content": text})
                answer = _answer(api, messages, max_tokens, temperature)
                if answer:
                    messages.append({"role": "assistant", "content": answer})
                else:  # nothing was said, so nothing is remembered
                    messages.pop()


def _ask(at_terminal: bool) -> str | None:
    """Return the next line, or None at the end; Ctrl-C drops a half-typed one."""
    while True:
        try:
            return input("\nyou: " if at_terminal else "")
        except EOFError:
            return None
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /quit leaves)")


def _answer(api: Api, messages: list[dict[str, str]], max_tokens: int, temperature: float) -> str:
    """Print the answer as it comes and return what there was of it."""
    from sharedllm.cli.talk.api import ApiFailed

    pieces: list[str] = []
    started_s = time.monotonic()
    stream = api.chat(messages, max_tokens=max_tokens, temperature=temperature)
    try:
        for piece in stream:
            pieces.append(piece)
            print(piece, end="", flush=True)
        print()
        if sys.stdout.isatty():
            print(f"({time.monotonic() - started_s:.1f} s)")
    except KeyboardInterrupt:
        print("\n(stopped)")
    except ApiFailed as error:
        print(f"\n{error}", file=sys.stderr)
    finally:
        stream.close()  # hangs up, so that the primary stops too
    return "".join(pieces)
