"""``sharedllm specialist``: train one, publish it, see what there is, and fetch another's."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sharedllm.cli.progress import learning, showing

if TYPE_CHECKING:
    from sharedllm.nodes.coordinator import CoordinatorClient
    from sharedllm.nodes.identity import NodeKey
    from sharedllm.store.specialists import Signed

_ID = 12
_KEY = 16
_FILE_BYTES = 1 << 16

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Train specialists, publish them, and fetch those of others.\n\n"
    "Examples:\n\n"
    "  sharedllm specialist list\n\n"
    "  sharedllm specialist train code --base toy --name toy-code\n\n"
    "  sharedllm specialist publish toy-code\n\n"
    "  sharedllm specialist fetch toy-code\n\n"
    "  sharedllm specialist withdraw toy-code",
)

NameOrId = Annotated[str, typer.Argument(help="The name of a specialist, or its id.")]
State = Annotated[
    Path | None,
    typer.Option(help="The state folder of any node of the federation.  [default: where it usually is]"),
]
Coordinator = Annotated[
    str | None,
    typer.Option(
        "--to",
        "--from",
        envvar="SHAREDLLM_COORDINATOR_URL",
        help="Where the coordinator is.  [default: as joined]",
    ),
]


@app.command()
def train(
    domain: Annotated[str, typer.Argument(help="A domain of `sharedllm corpus list`, such as code.")],
    base: Annotated[
        str, typer.Option(help="toy and 30m are trained on whole, others get a norm adapter.")
    ] = "smollm2-135m",
    name: Annotated[str | None, typer.Option(help="What it will be called.  [default: BASE-DOMAIN]")] = None,
    seed: Annotated[int, typer.Option(help="Decides the order of the text.")] = 0,
    tokens: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's budget.")] = None,
    lr: Annotated[float | None, typer.Option(help="Instead of the recipe's learning rate.")] = None,
) -> None:
    """Train a specialist of one domain, sign it with your publisher's key, and keep it on this machine.

    Example: sharedllm specialist train code --base toy --name toy-code
    """
    from sharedllm.nodes.specialists import trained

    with learning() as progress:
        signed = trained(
            domain,
            base,
            name=name or f"{base}-{domain}",
            private=_publisher().private,
            seed=seed,
            tokens=tokens,
            lr=lr,
            progress=progress,
        )
    typer.echo(f"{signed.name} {signed.id[:_ID]}: {_held_out(signed)}.")


@app.command("list")
def list_(
    federation: Annotated[
        bool, typer.Option("--federation", help="What the federation's library has, instead of this machine.")
    ] = False,
    state: State = None,
    coordinator: Coordinator = None,
) -> None:
    """List specialists with id, kind, signer, and how they did on held-out text.

    Example: sharedllm specialist list
    """
    from sharedllm.store import specialists

    if federation:
        from sharedllm.nodes.specialists import listing

        with _client(state, coordinator) as client:
            found = listing(client)
        for entry in found:
            typer.echo(
                f"{entry['name']:<20} {entry['id'][:_ID]}  {_listed(entry)}; "
                f"signed by {_signer(entry['signer'])}"
            )
        return
    for name in specialists.names():
        signed = specialists.find(name)
        typer.echo(
            f"{name:<20} {signed.id[:_ID]}  {_kind(signed)}; {_held_out(signed)}; "
            f"signed by {_signer(signed.signer)}"
        )


@app.command()
def publish(
    name: Annotated[str, typer.Argument(help="A specialist or a model of this machine, or a model's path.")],
    called: Annotated[
        str | None, typer.Option("--as", help="What a model is called from now on.  [default: its own name]")
    ] = None,
    with_base: Annotated[
        bool, typer.Option("--with-base", help="Send an adapter's base too, for who can't fetch it by name.")
    ] = False,
    state: State = None,
    coordinator: Coordinator = None,
) -> None:
    """Publish a specialist, or a model, in the federation: its manifest, and the blobs the library lacks.

    A model without a signed manifest gets one, signed with your publisher's key.

    Example: sharedllm specialist publish toy-code --to https://192.168.1.5:8420
    """
    from sharedllm.nodes.specialists import offer

    signed = _signed(name, called)
    body = signed.body
    base = {body.weights_sha256, body.tokenizer_sha256}
    leave_out = base if body.adapter is not None and not with_base else set()
    with _client(state, coordinator) as client, showing() as progress:
        offer(client, signed, leave_out=leave_out, progress=progress)
    typer.echo(f"{signed.name} is published; its id is {signed.id}.")


@app.command()
def fetch(
    name: NameOrId,
    signer: Annotated[
        list[str] | None,
        typer.Option(help="Accept this public key (64 hex digits) alone; may be repeated.  [default: any]"),
    ] = None,
    called: Annotated[str | None, typer.Option("--as", help="What it is called here.")] = None,
    state: State = None,
    coordinator: Coordinator = None,
) -> None:
    """Fetch a specialist from the federation's library into this machine's store, every byte checked.

    Example: sharedllm specialist fetch toy-code --from https://192.168.1.5:8420
    """
    from sharedllm.nodes import specialists

    with _client(state, coordinator) as client, showing() as progress:
        signed = specialists.fetch(client, name, signers=signer, known_as=called, progress=progress)
    typer.echo(
        f"{called or signed.name} is here: {_kind(signed)}; {_held_out(signed)}; signed by "
        f"{_signer(signed.signer)}."
    )


@app.command()
def withdraw(name: NameOrId, state: State = None, coordinator: Coordinator = None) -> None:
    """Take back what you published: the library stops listing it, and forgets blobs that nothing else names.

    Of a name, every version is withdrawn, for good; what others have fetched stays with them.

    Example: sharedllm specialist withdraw toy-code
    """
    from sharedllm.nodes import specialists

    with _client(state, coordinator) as client:
        ids = specialists.withdraw(client, name, _publisher().private)
    typer.echo(f"{name} is withdrawn: {', '.join(id[:_ID] for id in ids)}.")


@app.command()
def inspect(
    name: Annotated[str, typer.Argument(help="A specialist's name or id, or a file with a signed manifest.")],
) -> None:
    """Show all that a signed manifest says, once its signature is verified.

    Example: sharedllm specialist inspect code
    """
    signed = _read(name)
    body = signed.body
    facts = {
        "name": signed.name,
        "id": signed.id,
        "signer": f"{signed.signer} ({_signer(signed.signer)})",
        "kind": _kind(signed),
        "manifest": f"{len(signed.to_bytes()):,} bytes, the signature is right",
        "licence": body.licence,
        **{f"blob {sha256[:_ID]}": _whereabouts(sha256, size) for sha256, size in signed.blobs.items()},
        **{f"config.{key}": value for key, value in body.config.to_dict().items()},
        **{f"provenance.{key}": value for key, value in body.provenance.items()},
    }
    for key, value in facts.items():
        # JSON escapes what a stranger might say to a terminal
        typer.echo(f"{json.dumps(key)[1:-1]:<26} {value if key[0] != 'p' else json.dumps(value)}")


def _read(name: str) -> Signed:
    from sharedllm.store.specialists import Signed, find

    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        with path.open("rb") as file:
            return Signed.from_bytes(file.read(_FILE_BYTES), name)
    return find(name)


def _signed(name: str, called: str | None) -> Signed:
    """Find the specialist, or make one of the model of that name or path."""
    import dataclasses

    from sharedllm import store
    from sharedllm.errors import UnknownName
    from sharedllm.store import specialists

    if called is None:
        with contextlib.suppress(UnknownName):
            return specialists.find(name)
    with showing() as progress:
        manifest = store.resolve(name, progress=progress)
    body = dataclasses.replace(manifest, name=called or manifest.name)
    signed = specialists.sign(body, _publisher().private)
    specialists.publish(signed.name, signed)
    return signed


def _publisher() -> NodeKey:
    """The key of who publishes from this machine, made when it is first needed."""
    from sharedllm.nodes.identity import NodeKey, state_root

    return NodeKey.load_or_create(state_root() / "publisher" / "node.key")


def _client(state: Path | None, url: str | None) -> contextlib.closing[CoordinatorClient]:
    from sharedllm.cli.network.status import member_client

    return contextlib.closing(member_client(state, url))


def _kind(signed: Signed) -> str:
    adapter, base = signed.body.adapter, signed.body.provenance.get("base")
    if adapter is None:
        return f"whole model, {signed.body.sizes['weights']:,} bytes"
    on = base.get("name") if isinstance(base, dict) else None
    return f"{adapter.method} adapter of {adapter.size:,} bytes on {_plain(on or 'a base')}"


def _listed(entry: dict[str, Any]) -> str:
    """What an entry of the library is, and how much of it is missing there."""
    whole = entry["adapter"] == "none"
    kind, with_base = ("whole model", "") if whole else (f"{entry['adapter']} adapter", " with its base")
    missing = len(entry["missing"])
    lacks = f", lacks {missing} blob{'s' * (missing > 1)}" if missing else ""
    return f"{kind}, {entry['bytes']:,} bytes{with_base}{lacks}"


def _held_out(signed: Signed) -> str:
    """Say what the manifest says about held-out text, if it does."""
    test: Any = signed.body.provenance.get("test")
    try:
        nats, documents = test["nats_per_token"], test["documents"]
        before, after = float(nats["base"]), float(nats["specialist"])
        return f"held-out {before:.3f} to {after:.3f} nats per token over {int(documents)} documents"
    except (TypeError, KeyError, ValueError):
        return "no held-out loss stated"


def _signer(key: str) -> str:
    from sharedllm.nodes.identity import state_root
    from sharedllm.store.specialists import PUBLISHER

    if key == PUBLISHER:
        return "the package's publisher"
    mine = state_root() / "publisher" / "node.key"
    if mine.is_file() and _publisher().public_bytes.hex() == key:
        return "you"
    return f"{_plain(key)[:_KEY]}…"


def _whereabouts(sha256: str, size: int) -> str:
    from sharedllm.store import Blobs

    return f"{size:,} bytes, {'here' if Blobs().has(sha256) else 'not here'}"


def _plain(text: object) -> str:
    return "".join(letter for letter in str(text)[:80] if letter.isprintable())
