"""``sharedllm vote``: a member's word against another, for when nobody is in charge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sharedllm.nodes.operations import BadSetting

if TYPE_CHECKING:
    from sharedllm.nodes.trust import Accusation

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def vote(
    node: Annotated[
        str | None, typer.Argument(help="The id of a node, or its name if only one has it.  [default: list]")
    ] = None,
    because: Annotated[
        str | None, typer.Option(help="Why; the others read it, and decide for themselves.")
    ] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the vote back.")] = False,
    state: Annotated[
        Path | None,
        typer.Option(help="This machine's worker's state folder.  [default: where it usually is]"),
    ] = None,
) -> None:
    """Vote for a node's expulsion, or list who is accused.

    Members that gossip (--gossip-port) refuse a node once two thirds of those they
    know, and at least three, have voted; no coordinator is needed. A node that runs
    takes the vote up within seconds.

    Example: sharedllm vote attic --because "It answered with other weights."
    """
    from sharedllm.cli.network.serving import state_folder
    from sharedllm.nodes.gossip.memory import names
    from sharedllm.nodes.identity import is_node_id
    from sharedllm.nodes.trust import accusations
    from sharedllm.nodes.trust import vote as cast

    folder = state_folder(state, "worker")
    if not folder.is_dir():
        raise BadSetting(f"There is no state folder {folder}; give that of a worker with --state.")
    called = names(folder / "nodes.json")
    if node is None:
        _list(accusations(folder), called)
        return
    if withdraw == (because is not None):
        raise BadSetting("Give a vote a reason with --because, or take it back with --withdraw.")
    # an id is an id: somebody may have taken another's for a name
    found = [] if is_node_id(node) else [id for id, name in called.items() if name == node]
    if len(found) > 1:
        raise BadSetting(f"{len(found)} nodes are called {node}; give the id: {', '.join(sorted(found))}.")
    id = found[0] if found else node
    cast(folder, id, because)
    typer.echo(f"The vote against {_called(id, called)} is {'taken back' if withdraw else 'cast'}.")


def _list(accused: dict[str, Accusation], called: dict[str, str]) -> None:
    if not accused:
        typer.echo("Nobody is accused, as far as this machine has heard.")
    for id, accusation in accused.items():
        typer.echo(f"{_called(id, called)}: {'expelled' if accusation.expelled else 'accused'}")
        for signer, because in accusation.reasons.items():
            # a reason may come from anybody, and must not steer a terminal
            shown = "".join(letter if letter.isprintable() else "?" for letter in because)
            typer.echo(f"  {_called(signer, called)}: {shown or '(no reason kept)'}")


def _called(id: str, called: dict[str, str]) -> str:
    return f"{called[id]} ({id})" if id in called else id
