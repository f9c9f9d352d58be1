"""``sharedllm train diloco``: several processes train one model together, and one of them may lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sharedllm.errors import BadRecipe

__all__ = ["EXAMPLES", "diloco"]

EXAMPLES = (
    "Examples:\n\n"
    "  sharedllm train diloco --workers 4 --byzantine 1\n\n"
    "  sharedllm train diloco --model small --rounds 12 --byzantine 1 --attack optimised-alie\n\n"
    "  sharedllm train diloco --model small --churn kill:2@3,freeze:1@4-6,join@5\n\n"
    "  sharedllm train diloco --join 192.168.1.5:29500"
)

Base = Annotated[
    Literal["toy", "small"], typer.Option("--model", help="toy (3.2 M weights), or small (0.4 M).")
]
Workers = Annotated[int, typer.Option(min=1, help="Processes that train; each uses one core.")]
Rounds = Annotated[
    int | None, typer.Option(min=1, help="How often they meet.  [default: the toy recipe's tokens in all]")
]
Minutes = Annotated[
    float | None, typer.Option(help="Time budget instead; becomes rounds, measured here first.")
]
Inner = Annotated[int, typer.Option(min=1, help="Steps that each takes alone in a round.")]
CodecName = Annotated[
    Literal["fp32", "int8", "2bit", "topk"],
    typer.Option(help="Updates at 32, 8, 2 or 0.16 bits per number."),
]
Byzantine = Annotated[int, typer.Option(min=0, help="How many of the workers lie.")]
Attack = Annotated[
    str,
    typer.Option(help="What they send: scale, sign-flip, nan, optimised-alie, mimic, label-flip, stale …"),
]
Rule = Annotated[
    str | None,
    typer.Option(help="How updates become one: mean, median, krum …  [default: nnm+median, or mean]"),
]
Tolerate = Annotated[
    int | None, typer.Option(min=0, help="How many liars the rule must bear.  [default: --byzantine]")
]
Shards = Annotated[
    Literal["mixed", "domains"],
    typer.Option(help="Each worker reads a part of every domain, or one domain."),
]
Seed = Annotated[int, typer.Option(help="Decides the initial weights and the order of the text.")]
OuterLr = Annotated[float, typer.Option(help="Rate of the outer step.")]
OuterMomentum = Annotated[float, typer.Option(help="Its Nesterov momentum.")]
Patience = Annotated[float, typer.Option(help="Seconds that the others wait for one of them.")]
Turmoil = Annotated[
    str, typer.Option(help="Who dies, hangs and joins: kill:2@3,freeze:1@4-6,join@5 (worker@round).")
]
Address = Annotated[
    str, typer.Option(help="Where the workers meet; whoever reaches it can disturb the training.")
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 lets the system choose.")]
Join = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Join the training that meets there, and nothing else."),
]
Compare = Annotated[bool, typer.Option(help="Then train alone on as many tokens, and show that beside it.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Folder for checkpoints; by default one per command, in the store.")
]


def diloco(
    base: Base = "toy",
    workers: Workers = 4,
    rounds: Rounds = None,
    minutes: Minutes = None,
    inner_steps: Inner = 20,
    codec: CodecName = "int8",
    byzantine: Byzantine = 0,
    attack: Attack = "scale",
    rule: Rule = None,
    tolerate: Tolerate = None,
    shards: Shards = "mixed",
    seed: Seed = 0,
    outer_lr: OuterLr = 0.7,
    outer_momentum: OuterMomentum = 0.9,
    patience: Patience = 60.0,
    churn: Turmoil = "",
    address: Address = "127.0.0.1",
    port: Port = 0,
    join: Join = None,
    compare: Compare = True,
    checkpoint: Checkpoint = None,
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
    borne = byzantine if tolerate is None else tolerate
    decides = (base, workers, rounds, minutes, inner_steps, codec, byzantine, attack)
    agreed = (rule or ("nnm+median" if borne else "mean"), borne, shards, seed, outer_lr, outer_momentum)
    train(Asked(*decides, *agreed, churn, patience, address, port, compare, checkpoint))
