"""``sharedllm train diloco``: several processes train one model together, and one of them may lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sharedllm.errors import BadRecipe

__all__ = ["diloco"]

Base = Literal["toy", "small"]
CodecName = Literal["fp32", "int8", "2bit", "topk"]

EXAMPLES = (
    "Examples:\n\n"
    "  sharedllm train diloco --workers 4 --byzantine 1\n\n"
    "  sharedllm train diloco --model small --rounds 12 --byzantine 1 --attack alie --rule median\n\n"
    "  sharedllm train diloco --model small --churn kill:2@3,freeze:1@4-6,join@5\n\n"
    "  sharedllm train diloco --join 192.168.1.5:29500"
)


def diloco(
    model: Annotated[
        Base, typer.Option(help="What is trained: toy (3.2 M weights) or small (0.4 M).")
    ] = "toy",
    workers: Annotated[int, typer.Option(min=1, help="Processes that train; each uses one core.")] = 4,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How often they meet.  [default: the recipe's tokens in all]")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Time budget instead; becomes rounds, measured here first.")
    ] = None,
    inner_steps: Annotated[int, typer.Option(min=1, help="Steps that each takes alone in a round.")] = 20,
    codec: Annotated[
        CodecName, typer.Option(help="How an update is written: 32, 8, 2 or 0.16 bits.")
    ] = "int8",
    byzantine: Annotated[int, typer.Option(min=0, help="How many of the workers lie.")] = 0,
    attack: Annotated[
        str, typer.Option(help="What they send: scale, sign-flip, nan, alie, ipm, mimic, label-flip, stale …")
    ] = "scale",
    rule: Annotated[
        str | None,
        typer.Option(
            help="How updates become one: mean, median, nnm+median …  [default: nnm+median, or mean]"
        ),
    ] = None,
    tolerate: Annotated[
        int | None, typer.Option(min=0, help="How many liars the rule must survive.  [default: --byzantine]")
    ] = None,
    shards: Annotated[
        Literal["mixed", "domains"],
        typer.Option(help="Each worker reads a part of every domain, or one domain."),
    ] = "mixed",
    seed: Annotated[int, typer.Option(help="Decides the initial weights and the order of the text.")] = 0,
    outer_lr: Annotated[float, typer.Option(help="Rate of the outer step.")] = 0.7,
    outer_momentum: Annotated[float, typer.Option(help="Its Nesterov momentum.")] = 0.9,
    patience: Annotated[float, typer.Option(help="Seconds that the others wait for one of them.")] = 60.0,
    churn: Annotated[
        str, typer.Option(help="Who dies, hangs and joins: kill:2@3,freeze:1@4-6,join@5 (worker@round).")
    ] = "",
    address: Annotated[
        str, typer.Option(help="Where the workers meet; whoever reaches it can disturb the training.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 lets the system choose.")] = 0,
    join: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Join the training that meets there, and nothing else."),
    ] = None,
    compare: Annotated[
        bool, typer.Option(help="Then train alone on as many tokens, and show that beside it.")
    ] = True,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints; by default one per settings, in the store.")
    ] = None,
) -> None:
    """Train one model by several processes that meet every few steps, although some of them may lie."""
    from sharedllm.cli.together import Asked, join_at, train

    if join is not None:
        join_at(join)
        return
    if byzantine >= workers:
        raise BadRecipe(f"{byzantine} of {workers} workers would lie; leave at least one that is honest.")
    if rounds is not None and minutes is not None:
        raise BadRecipe("--rounds and --minutes are two budgets for one training; give one of them.")
    survived = byzantine if tolerate is None else tolerate
    train(
        Asked(
            base=model,
            workers=workers,
            rounds=rounds,
            minutes=minutes,
            inner_steps=inner_steps,
            codec=codec,
            liars=byzantine,
            attack=attack,
            rule=rule or ("nnm+median" if survived else "mean"),
            survived=survived,
            shards=shards,
            seed=seed,
            outer_lr=outer_lr,
            outer_momentum=outer_momentum,
            patience_s=patience,
            churn=churn,
            address=address,
            port=port,
            compare=compare,
            folder=checkpoint,
        )
    )
