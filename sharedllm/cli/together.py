"""How a joint training looks in a terminal: a line or a bar while it runs, tables when it is over."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from sharedllm.cli.signals import interrupted_by_signals
from sharedllm.errors import BadRecipe
from sharedllm.robust import check_rule
from sharedllm.store import home, sha256_of
from sharedllm.training import Prepared, domain_losses, live
from sharedllm.training.outer import Codec, put_weights
from sharedllm.training.outer.joint import Record, alone, joint_recipe, prepare_joint, rounds_in, usual_rounds
from sharedllm.training.outer.processes import (
    CannotGoOn,
    Churn,
    Crew,
    Event,
    Meeting,
    Settings,
    State,
    check_attack,
    enter,
    host,
    listen,
    stored_state,
)

__all__ = ["Asked", "join_at", "train"]

_SECONDS_PER_MINUTE = 60
_ANY = 10**9  # rounds: how many there are is not known yet


@dataclass(frozen=True)
class Asked:
    """The command's options, first those that decide the result."""

    base: str
    workers: int
    rounds: int | None
    minutes: float | None
    inner_steps: int
    codec: Codec
    liars: int
    attack: str
    rule: str
    survived: int
    shards: Any
    seed: int
    outer_lr: float
    outer_momentum: float
    churn: str
    patience_s: float
    address: str
    port: int
    compare: bool
    folder: Path | None

    @property
    def label(self) -> str:
        """Name the default folder after what decides the result, so that another command starts anew."""
        aside = {"patience_s", "address", "port", "compare", "folder"}
        deciding = {key: value for key, value in dataclasses.asdict(self).items() if key not in aside}
        return f"diloco-{self.base}-seed{self.seed}-{sha256_of(deciding)[:8]}"


def train(asked: Asked) -> None:
    """Do what ``sharedllm train diloco`` was asked for."""
    check_attack(asked.attack)
    check_rule(asked.rule, asked.workers, asked.survived)
    usual = usual_rounds(asked.workers, asked.inner_steps)
    churn = Churn.of(asked.churn, asked.workers, asked.rounds or (_ANY if asked.minutes else usual))
    listener = listen(asked.address, asked.port)
    console = Console(stderr=True, markup=False, highlight=False)
    console.print(f"{asked.base}: preparing the text and the tokenizer", soft_wrap=True)
    prepared = prepare_joint(asked.base, asked.seed)
    folder = asked.folder or home() / "checkpoints" / asked.label
    settings = _settings(asked, prepared, folder)
    store = host(settings, listener)
    liars = dict.fromkeys(range(settings.workers - asked.liars, settings.workers), asked.attack)
    record = Record.read(folder / "rounds.json")
    numbers = range(settings.workers)
    console.print(
        f"{settings.workers} workers meet at {asked.address}:{store.port}; checkpoints in {folder}",
        soft_wrap=True,
    )
    with (
        interrupted_by_signals(),
        Crew(settings, prepared.streams, folder, store=store, numbers=numbers, liars=liars) as crew,
    ):
        ends = _watch(console, crew, record, churn)
    _report(asked, settings, prepared, record, _final(folder, settings, ends), liars)


def join_at(place: str) -> None:
    """Join the training that meets at ``place`` (HOST:PORT) with one worker of this machine."""
    address, _, port = place.rpartition(":")
    if not address or not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadRecipe(f"{place!r} is no place to meet; give HOST:PORT, as the training printed it.")
    console = Console(stderr=True, markup=False, highlight=False)
    store, settings = enter(address.strip("[]"), int(port))
    console.print(f"{settings.base}: preparing the text and the tokenizer", soft_wrap=True)
    prepared = prepare_joint(settings.base, settings.seed)
    expected = (prepared.model.config, joint_recipe(settings.base, settings.rounds, settings.inner_steps))
    if (settings.config, settings.recipe) != expected:
        raise BadRecipe(
            f"What is trained at {place} as {settings.base!r} is not what this version calls so; both sides "
            "need the same version of SharedLLM."
        )
    with tempfile.TemporaryDirectory() as name, interrupted_by_signals():
        folder = Path(name)
        number = Meeting.number(store)
        console.print(f"this is worker {number}", soft_wrap=True)
        with Crew(settings, prepared.streams, folder, store=store, numbers=[number]) as crew:
            ends = _watch(console, crew, Record(folder / "rounds.json"), Churn())
        state = _final(folder, settings, ends, one=True)
    typer.echo(f"worker {number} finished round {state.round}; state {state.sha256[:12]}")


def _settings(asked: Asked, prepared: Prepared, folder: Path) -> Settings:
    rounds = asked.rounds or usual_rounds(asked.workers, asked.inner_steps)
    if asked.minutes is not None and (folder / "settings.json").exists():
        rounds = json.loads((folder / "settings.json").read_bytes())["rounds"]  # as measured at the start
    elif asked.minutes is not None:
        seconds, cores = asked.minutes * _SECONDS_PER_MINUTE, os.cpu_count() or 1
        rounds = rounds_in(seconds, prepared, asked.workers, asked.inner_steps, cores)
    return Settings(
        base=asked.base,
        config=prepared.model.config,
        recipe=joint_recipe(asked.base, rounds, asked.inner_steps),
        text_sha256=prepared.streams.sha256,
        seed=asked.seed,
        workers=asked.workers,
        rounds=rounds,
        inner_steps=asked.inner_steps,
        shards=asked.shards,
        codec=asked.codec,
        rule=asked.rule,
        liars=asked.survived,
        outer_lr=asked.outer_lr,
        outer_momentum=asked.outer_momentum,
        patience_s=asked.patience_s,
    )


def _watch(console: Console, crew: Crew, record: Record, churn: Churn) -> dict[int, str]:
    """Show what the workers say until all have ended; return the hash of each one's last state."""
    ends: dict[int, str] = {}
    with _showing(console, crew.settings) as show:
        for event in crew.events():
            for done in churn.after(event, crew):
                console.print(done, soft_wrap=True)
            if event["event"] == "round":
                if record.add(event):
                    record.write()
                    show(record, event)
            elif event["event"] == "done":
                ends[event["worker"]] = event["sha256"]
            elif told := _told(event):
                console.print(told, soft_wrap=True)
    return ends


def _told(event: Event) -> str:
    """Say in a sentence what happened to a worker, or nothing."""
    worker = f"worker {event['worker']}"
    if event["event"] == "out":
        return str(event["why"])
    if event["event"] == "broken":
        return f"{worker}: round {event['round'] + 1} is repeated. {event['why']}"
    if event["event"] == "ended" and event["code"] != 0:
        how = f"by {signal.Signals(-event['code']).name}" if event["code"] < 0 else "early"
        return f"{worker} ended {how}. {event['why']}".strip()
    return ""


@contextlib.contextmanager
def _showing(console: Console, settings: Settings) -> Iterator[Callable[[Record, Event], None]]:
    began_s, first = time.monotonic(), [-1]

    def line(record: Record, event: Event) -> str:
        if first[0] < 0:
            first[0] = event["round"]
        done, left = event["round"] + 1, settings.rounds - event["round"] - 1
        each_s = (time.monotonic() - began_s) / (done - first[0])
        members = " ".join(str(number) for number in event["members"])
        return (
            f"round {done}/{settings.rounds} · loss {event['loss_nats']:.3f} nats/token · "
            f"{decimal(record.message_bytes)} written · in: {members} · {left * each_s:.0f} s left"
        )

    if not console.is_terminal:
        yield lambda record, event: console.print(line(record, event), soft_wrap=True)
        return
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task(settings.base, total=settings.rounds)

        def draw(record: Record, event: Event) -> None:
            bar.update(task, completed=event["round"] + 1, description=line(record, event))

        yield draw


def _final(folder: Path, settings: Settings, ends: dict[int, str], *, one: bool = False) -> State:
    """Return the state that enough workers ended with. Raises ``CannotGoOn`` when there is none."""
    needed = 1 if one else settings.liars + 1
    for number, sha256 in sorted(ends.items()):
        if list(ends.values()).count(sha256) >= needed:
            state = stored_state(folder, settings, number)
            if state is not None and state.sha256 == sha256:
                return state
    raise CannotGoOn(
        f"{len(ends)} workers came to the end and {needed} must agree on it; the same command goes on from "
        "the last checkpoint."
    )


def _report(
    asked: Asked,
    settings: Settings,
    prepared: Prepared,
    record: Record,
    state: State,
    liars: dict[int, str],
) -> None:
    """Print what was learned, beside the same training alone, and what each worker did."""
    put_weights(prepared.model, state.weights_P)
    window = settings.recipe.window
    model = prepared.model.eval()
    columns = {"together": domain_losses(model, prepared.tokenizer, "validation", window=window)}
    tokens = record.workers_rounds * settings.inner_steps * settings.recipe.tokens_per_step
    if asked.compare:
        recipe = dataclasses.replace(settings.recipe, tokens=tokens)
        with live(Console(stderr=True, markup=False, highlight=False), "alone") as on_step:
            columns["alone"] = alone(prepare_joint(asked.base, asked.seed), recipe, asked.seed, on_step)
    losses = Table(title="Validation loss in bits per byte", title_justify="left")
    losses.add_column("domain")
    for name in columns:
        losses.add_column(name, justify="right")
    for domain in columns["together"]:
        losses.add_row(domain, *(f"{column[domain]:.3f}" for column in columns.values()))
    losses.add_row("mean", *(f"{statistics.fmean(column.values()):.3f}" for column in columns.values()))
    console = Console()
    console.print(losses)
    console.print(_workers(record, liars, settings))
    for first, last, members in record.stretches():
        typer.echo(f"rounds {first + 1} to {last + 1}: workers {', '.join(map(str, members))}")
    typer.echo(
        f"{tokens:,} tokens; {decimal(record.message_bytes)} written as {settings.codec} for all others: "
        f"{decimal(record.sent_bytes)} sent by one worker, as its sockets count them"
    )
    typer.echo(f"state {state.sha256[:12]}, the same for all who came to the end")


def _workers(record: Record, liars: dict[int, str], settings: Settings) -> Table:
    table = Table(title=f"Who sent what; the step was their {settings.rule}", title_justify="left")
    for column in ("worker", "rounds", "distance", "refused", ""):
        table.add_column(column, justify="left" if column in ("worker", "") else "right")
    for number, rounds, away, refused in record.workers():
        said = f"lied: {liars[number]}" if number in liars else ""
        distance = "none" if away is None else f"{away:,.2f}"
        table.add_row(str(number), str(rounds), distance, str(refused), said)
    table.caption = "Distance of what it sent from the step taken, in units of the median worker's."
    return table
