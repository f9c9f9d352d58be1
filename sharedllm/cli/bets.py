"""``sharedllm bets``: list, register, run, decide and check bets."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from sharedllm.bets import Bet, Catalogue, Result, find_catalogue, read_result, run
from sharedllm.bets.check import check as check_catalogue
from sharedllm.bets.criteria import Verdict, judge, must, quantity
from sharedllm.bets.decide import decide as decide_bet
from sharedllm.bets.decide import mark as mark_bet
from sharedllm.bets.decide import register as register_bet
from sharedllm.bets.ledger import REASONS, Ledger, registered, standing, verdict
from sharedllm.bets.scaffold import scaffold
from sharedllm.cli.signals import interrupted_by_signals
from sharedllm.errors import BadBet, CatalogueTampered

Name = Annotated[str, typer.Argument(help="The bet, such as b018.", metavar="BET")]
Where = Annotated[Path | None, typer.Option("--catalogue", help="A checkout; default: the one we are in.")]
Regime = Annotated[str | None, typer.Option(help="One of the bet's regimes; needed if it has several.")]
By = Annotated[str | None, typer.Option(help="Who says so: a name, or the bet that shows it.")]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List, register, run, decide and check bets.\n\n"
    "Examples:\n\n"
    "  sharedllm bets list\n\n"
    "  sharedllm bets run b018 --regime 135m\n\n"
    "  sharedllm bets run b037 --regime toy --tier smoke\n\n"
    "  sharedllm bets run b018 --regime toy --set tokens=100\n\n"
    "  sharedllm bets decide b018 --regime 135m",
)
console = Console(highlight=False, soft_wrap=True)


@app.command("list")
def list_(
    where: Where = None, ids: Annotated[bool, typer.Option(help="Print the ids alone, one a line.")] = False
) -> None:
    """List every bet with its verdict and standing in each regime."""
    catalogue = _catalogue(where)
    if ids:
        for bet in catalogue.bets():
            print(bet.id)
        return
    events = Ledger(catalogue.ledger).read()
    table = Table(box=None, pad_edge=False)
    for column in ("bet", "regime", "verdict", "standing", "title"):
        table.add_column(column, overflow="fold")
    for bet in catalogue.bets():
        for regime in bet.registration.regimes:
            word, title = verdict(events, bet.id, regime), escape(bet.editorial.title)
            table.add_row(
                bet.id, regime, f"{word.shape} {word}", str(standing(events, bet.id, regime)), title
            )
    console.print(table)


@app.command()
def show(bet: Name, where: Where = None) -> None:
    """Print a bet's claim and rules, and for each regime what came out."""
    catalogue = _catalogue(where)
    this = catalogue.bet(bet)
    events = Ledger(catalogue.ledger).read()
    line = registered(events, this.id)
    console.print(f"{this.id} · {escape(this.editorial.title)}\n{escape(this.registration.claim)}")
    state = "not registered" if line is None else f"line {line.n} of the ledger, {line.at_utc}"
    if line is not None and line.registration_sha256 != this.registration.sha256:
        state += ", CHANGED SINCE"
    console.print(f"Registration {this.registration.sha256[:12]}: {state}")
    for regime in this.registration.regimes:
        word = verdict(events, this.id, regime)
        console.print(f"\n{regime}: {word.shape} {word} · {standing(events, this.id, regime)}")
        path = this.results / f"{regime}.json"
        metrics = read_result(path).metrics if path.exists() and word is not Verdict.UNRUN else None
        console.print(_rules(this, metrics))


@app.command()
def new(
    chapter: Annotated[str, typer.Argument(help="Such as transparency.")],
    name: Annotated[str, typer.Argument(help="Number and slug, such as b118-slow-audit.")],
    where: Where = None,
) -> None:
    """Make a new bet that passes check and can be filled in."""
    folder = scaffold(_catalogue(where), chapter, name)
    console.print(f"Made {folder}. Fill in bet.toml and bet.ipynb, try them with")
    console.print(f"  sharedllm bets run {name.split('-')[0]} --tier smoke")


@app.command()
def register(
    bet: Name,
    amend: Annotated[str | None, typer.Option(help="Why another registration is replaced.")] = None,
    by: By = None,
    where: Where = None,
) -> None:
    """Fix a bet's claim, parameters and rules in the ledger, before it runs."""
    catalogue = _catalogue(where)
    event = register_bet(catalogue, catalogue.bet(bet), amend=amend, by=by)
    console.print(
        f"Line {event.n}: {event.bet} is registered as {event.registration_sha256[:12]}. Commit this alone:"
    )
    console.print(
        f"  git add {_here(catalogue.ledger)} && git commit -m 'Register {event.bet}' -- "
        f"{_here(catalogue.ledger)}"
    )


@app.command("run")
def run_(
    bet: Name,
    regime: Regime = None,
    tier: Annotated[str, typer.Option(help="full, or smoke: quick, and it never decides.")] = "full",
    given: Annotated[
        list[str] | None, typer.Option("--set", "-p", help="name=value; makes the run exploratory.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where it goes; default: build/runs.")] = None,
    where: Where = None,
) -> None:
    """Run a bet's notebook under its limits and judge what it records."""
    catalogue = _catalogue(where)
    this = catalogue.bet(bet)
    chosen = _regime(this, regime)
    console.print(f"{this.id} in {chosen}, tier {tier}: {escape(this.editorial.title)}")
    with interrupted_by_signals(), console.status("starting …") as status:  # what there is, is kept
        result = run(
            catalogue,
            this,
            chosen,
            tier=tier,
            overrides=dict(_pair(text) for text in given or []),
            out_dir=out,
            on_event=lambda event: _relay(event, status),
        )
    _report(this, result)
    if result.fate == "canonical":
        console.print(f"Let it decide: sharedllm bets decide {this.id} --regime {chosen}")


@app.command()
def decide(
    bet: Name,
    regime: Regime = None,
    run_folder: Annotated[Path | None, typer.Option("--run", help="Default: under build/runs.")] = None,
    where: Where = None,
) -> None:
    """Let a canonical run decide a bet, or replicate it."""
    catalogue = _catalogue(where)
    this = catalogue.bet(bet)
    event = decide_bet(catalogue, this, _regime(this, regime), run_folder)
    word = Verdict(event.verdict or "UNRUN")
    outcome = f"{event.event} ({event.reason})" if event.reason else event.event
    console.print(
        f"Line {event.n}: {this.id} in {event.regime} is {outcome}: {word.shape} {word}. Commit it:"
    )
    paths = f"{_here(catalogue.ledger)} {_here(this.results)}"
    console.print(
        f"  git add {paths} && git commit -m 'Decide {this.id} in {event.regime}: {word}' -- {paths}"
    )


@app.command()
def mark(
    bet: Name,
    event: Annotated[str, typer.Argument(help="corrected, superseded or retracted.")],
    reason: Annotated[str, typer.Option(help=f"One of {', '.join(REASONS)}.")],
    by: By = None,
    regime: Regime = None,
    where: Where = None,
) -> None:
    """Correct, supersede or retract a bet; its verdict stays in sight."""
    catalogue = _catalogue(where)
    line = mark_bet(catalogue, catalogue.bet(bet), event, reason=reason, by=by, regime=regime)
    console.print(
        f"Line {line.n}: {line.bet} is {event} ({reason}). Say why in its NOTICE.md, and commit both."
    )


@app.command()
def check(where: Where = None) -> None:
    """Check every bet, result and ledger line against each other and against git."""
    catalogue = _catalogue(where)
    faults = check_catalogue(catalogue)
    if faults:
        raise CatalogueTampered("the catalogue is not sound:" + "".join(f"\n  – {fault}" for fault in faults))
    lines = len(Ledger(catalogue.ledger).read())
    console.print(f"Sound: {len(catalogue.folders())} bets, {lines} ledger lines.")


@app.command("open")
def open_(bet: Name, where: Where = None) -> None:
    """Open a bet's notebook in JupyterLab."""
    notebook = _catalogue(where).bet(bet).notebook
    beside = Path(sys.executable).with_name("jupyter-lab")
    lab = str(beside) if beside.exists() else shutil.which("jupyter-lab")
    if lab is None:
        raise BadBet(
            f"JupyterLab is not installed: pip install 'sharedllm[lab]', then: jupyter lab {notebook}"
        )
    os.execv(lab, [lab, str(notebook)])


def _catalogue(where: Path | None) -> Catalogue:
    return find_catalogue(where)


def _regime(bet: Bet, given: str | None) -> str:
    regimes = list(bet.registration.regimes)
    if given is None and len(regimes) > 1:
        raise BadBet(f"{bet.id} has the regimes {', '.join(regimes)}; name one with --regime.")
    return given or regimes[0]


def _pair(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise BadBet(f"--set takes name=value, not {text!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _relay(event: Mapping[str, Any], status: Status) -> None:
    left = f"{event['elapsed_s']:,.0f} s, limit in {event['remaining_s']:,.0f} s"
    match event["event"]:
        case "cell":
            status.update(f"cell {event['cell']} of {event['of']} · {left}")
            console.print(f"  cell {event['cell']} of {event['of']}  [dim]{escape(event['line'])}[/dim]")
        case "progress":
            status.update(f"{escape(event['line'])} · {left}")
            if not console.is_terminal:
                console.print(f"    {escape(event['line'])} · {left}")


def _report(bet: Bet, result: Result) -> None:
    console.print(_rules(bet, result.metrics))
    word = Verdict(result.verdict)
    would = "" if result.fate == "canonical" else "would be "
    console.print(f"{would}{word.shape} {word} · {result.fate} · {result.timing.wall_s:,.0f} s")
    for note in result.notes:
        console.print(f"  {escape(note)}")


def _rules(bet: Bet, metrics: Mapping[str, Any] | None) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("level", "rule", "must be", "was", "held"):
        table.add_column(column, overflow="fold")
    if metrics is None:
        for rule in (*bet.registration.controls, *bet.registration.criteria):
            level = getattr(rule, "level", "control")
            table.add_row(level, escape(rule.name), must(rule.rule, rule.unit), "–", "–")
        return table
    judgement = judge(bet.registration, metrics)
    for outcome in (*judgement.controls, *judgement.criteria):
        table.add_row(outcome.level, escape(outcome.name), outcome.must, outcome.was, quantity(outcome.held))
    return table


def _here(path: Path) -> str:
    return os.path.relpath(path)
