"""The planner's time, and the gap of its heuristic: ``python -m tests.benchmarks.planner``.

- time of ``plan`` for 1,000 nodes × 80 layers, this thread's processor time, median of 7; nodes
  with room for up to 30 layers (a pipeline has some 4), and for up to 4 (some 20)
- small cases (2–6 nodes, 1–8 layers) beside brute force: the plan as served (exact there), and the
  heuristic's rounds alone, which larger cases stand on
- 11–12 nodes × 16 layers beside the exact search: the heuristic as served, and its rounds alone
- one more node beyond the exact search's ten: how often, and by how much, the prediction gets worse

Nodes stand at random points of a plane (``plane``), at a few sites with fast links within (``sites``), or
have nothing measured but the way to the primary (``star``). Ratios are token time / least token time.

*Not covered*: how good the figures that a plan is made of are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sharedllm.nodes.planner import Links, ModelShape, NodeOffer, NoHome, Objective, Plan, plan
from sharedllm.nodes.planner.exhaustive import best_of_all
from sharedllm.nodes.planner.problem import Problem, room, square, token_s
from sharedllm.nodes.planner.search import search
from tests.benchmarks import brute_force

LINKS = Links()
LAYOUTS = ("plane", "sites", "star")
_SAME = 1 + 1e-9


def shape(layers: int) -> ModelShape:
    """A model of layers of 1 GB, with 16 KiB of activations."""
    return ModelShape("ab" * 32, layers, 900_000_000, 100_000_000, 8192, 16384)


def federation(seed: int, nodes: int, layout: str, most_layers: int) -> list[NodeOffer]:
    """``nodes`` offers with room for 0 to ``most_layers`` layers at 0.3–10 ms each, up to 60 ms apart."""
    draw = random.Random(f"{seed} {nodes} {layout}")
    sites = [(draw.random(), draw.random()) for _ in range(max(2, nodes // 4))]
    places = [
        draw.choice(sites) if layout == "sites" else (draw.random(), draw.random()) for _ in range(nodes)
    ]

    def rtt_s(a: tuple[float, float], b: tuple[float, float]) -> float:
        return 0.0005 + 0.06 * math.dist(a, b)

    names = [f"n{number:04d}" for number in range(nodes)]
    offers = []
    for name, place in zip(names, places, strict=True):
        others = {} if layout == "star" else zip(names, places, strict=True)
        measured = {other: rtt_s(place, there) for other, there in dict(others).items() if other != name}
        measured["primary"] = rtt_s(place, (0.5, 0.5))
        memory = draw.randint(0, most_layers) * shape(1).bytes_per_layer
        speed = 10 ** draw.uniform(-3.5, -2)
        offers.append(NodeOffer(name, memory, speed, rtt_s=measured, bandwidth_bytes_per_s=1.25e7))
    return offers


def times(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of ``plan`` for 1,000 nodes × 80 layers, by layout, largest node and objective."""
    rows = []
    for layout, most in itertools.product(LAYOUTS, (30, 4)):
        offers = federation(0, 1000, layout, most)
        for objective in (Objective(), Objective("spread", 8 if most == 30 else 24)):
            runs_ms = []
            for _ in range(repeats + 1):
                began_s = time.thread_time()
                plan(offers, shape(80), objective, LINKS)
                runs_ms.append(1000 * (time.thread_time() - began_s))
            rows.append(
                {
                    "layout": layout,
                    "most_layers": most,
                    "objective": objective.kind if objective.nodes is None else f"spread {objective.nodes}",
                    "median_ms": statistics.median(runs_ms[1:]),
                    "worst_ms": max(runs_ms[1:]),
                }
            )
    return rows


def problem(offers: list[NodeOffer], model: ModelShape) -> Problem | None:
    """The offers that have room as a problem; None if they can't hold the model."""
    usable = [offer for offer in offers if room(offer, model)]
    rooms = np.array([room(offer, model) for offer in usable], dtype=np.int64)
    if rooms.sum() < model.layers:
        return None
    speeds = np.array([offer.s_per_layer for offer in usable])
    return Problem(speeds, rooms, square(usable, model, LINKS), model.layers)


def small_gaps(seeds: int, layout: str) -> tuple[list[float], list[float]]:
    """Ratios to brute force of the plan as served, and of the heuristic's rounds alone."""
    served, rounds = [], []
    for seed in range(seeds):
        for nodes in range(2, 7):
            model = shape(1 + seed % 8)
            offers = federation(seed, nodes, layout, max(1, model.layers // (1 + seed % 3)))
            asked = problem(offers, model)
            if asked is None:
                continue
            usable = [offer for offer in offers if room(offer, model)]
            least_s = brute_force.least_token_s(brute_force.orders(usable, range(1, nodes + 1)), model, LINKS)
            made, chain = plan(offers, model, links=LINKS), search(asked, exact_nodes=0, core_nodes=0)
            if not isinstance(made, Plan) or chain is None:
                raise AssertionError("nodes that hold the model have a plan")
            served.append(made.token_s / least_s)
            rounds.append(token_s(asked, chain) / least_s)
    return served, rounds


def larger_gaps(seeds: int, layout: str) -> tuple[list[float], list[float]]:
    """Ratios to the exact search over 11–12 nodes, of the heuristic as served and of its rounds alone."""
    served, rounds = [], []
    for seed in range(seeds):
        model = shape(16)
        asked = problem(federation(seed, 11 + seed % 2, layout, 4), model)
        best = None if asked is None else best_of_all(asked)
        if asked is None or best is None:
            continue
        for ratios, core_nodes in ((served, 8), (rounds, 0)):
            chain = search(asked, exact_nodes=0, core_nodes=core_nodes)
            if chain is None:
                raise AssertionError("nodes that hold the model have a chain")
            ratios.append(token_s(asked, chain) / token_s(asked, best))
    return served, rounds


def one_more(seeds: int, layout: str) -> list[float]:
    """Token time with one more node / without it, for 10 to 40 nodes: above 1 the plan got worse."""
    ratios = []
    for seed in range(seeds):
        offers = federation(seed, 11 + seed % 31, layout, 8)
        fewer, more = (plan(some, shape(32), links=LINKS) for some in (offers[:-1], offers))
        if not isinstance(fewer, NoHome) and not isinstance(more, NoHome):
            ratios.append(more.token_s / fewer.token_s)
    return ratios


def distribution(ratios: list[float]) -> dict[str, float]:
    """Cases, the share that is no worse than 1, and the upper end."""
    ordered = np.sort(ratios)
    return {
        "cases": len(ratios),
        "optimal_percent": 100 * float((ordered <= _SAME).mean()),
        "mean": float(ordered.mean()),
        "p95": float(np.quantile(ordered, 0.95)),
        "p99": float(np.quantile(ordered, 0.99)),
        "worst": float(ordered[-1]),
    }


def gaps(seeds: int) -> Iterator[dict[str, Any]]:
    """One row per question and layout."""
    pairs: tuple[tuple[str, Callable[[int, str], tuple[list[float], list[float]]], int], ...] = (
        ("2–6 nodes, brute force", small_gaps, seeds),
        ("11–12 nodes, exact search", larger_gaps, max(1, seeds // 2)),
    )
    for what, measure, number in pairs:
        for layout in LAYOUTS:
            for kind, ratios in zip(("as served", "rounds alone"), measure(number, layout), strict=True):
                yield {"case": what, "plan": kind, "layout": layout, **distribution(ratios)}
    for layout in LAYOUTS:
        ratios = one_more(seeds, layout)
        yield {
            "case": "11–41 nodes, one fewer",
            "plan": "as served",
            "layout": layout,
            **distribution(ratios),
        }


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    """The rows as they are, numbers with four decimals."""
    drawn = Table(*rows[0], title=title)
    for row in rows:
        drawn.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    return drawn


def main() -> None:
    """Measure, print the tables, write the JSON if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=200, help="cases per size and layout")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    arguments = parser.parse_args()
    if arguments.seeds < 10:
        parser.error(f"--seeds is {arguments.seeds}; fewer than 10 leave some rows without a case")
    timed, ratios = times(arguments.repeats), list(gaps(arguments.seeds))
    console = Console(width=120)
    load = os.getloadavg()[0]
    console.print(table(f"plan(), 1,000 nodes × 80 layers; load {load:.1f}", timed))
    console.print(table("token time / least token time", ratios))
    if arguments.out:
        from sharedllm.store import atomic  # imports torch, which nothing else here needs

        figures = {"load_average_1_min": load, "time": timed, "gap": ratios}
        atomic.write_bytes(arguments.out, json.dumps(figures, indent=2).encode())


if __name__ == "__main__":
    main()
