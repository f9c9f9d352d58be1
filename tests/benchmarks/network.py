"""The network beside one process, in one run: ``python -m tests.benchmarks.network``.

Every process has the same number of threads; figures of one kind alternate, and medians are reported. The
model alone runs in this process while the federation idles.

*Not covered*: machines that are really apart (delays are emulated on loopback), GPUs, a machine that other
programs keep busy (the load is printed).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from rich.console import Console

from sharedllm import store
from sharedllm.nodes.local import Federation
from tests.benchmarks import rounding, splice
from tests.benchmarks.network_table import table
from tests.benchmarks.serving import (
    Alone,
    Timing,
    ask,
    memory_beside_weights,
    random_prompt,
    state,
    together,
)
from tests.nodes.emulated import EmulatedLink, far_worker, some_port

_PROMPT, _STEPS = 200, 64


def measure(model: str, threads: int, repeats: int, wan_ms: list[int]) -> dict[str, Any]:
    """All figures, as JSON values."""
    torch.set_num_threads(threads)
    found: dict[str, Any] = {
        "model": model,
        "threads": threads,
        "load": os.getloadavg()[0],
        "repeats": repeats,
    }
    with tempfile.TemporaryDirectory() as folder:
        with Federation(
            Path(folder) / "near", model=model, workers=2, port=0, coordinator_port=0, threads=threads
        ) as here:
            here.await_pipeline(120)
            found |= near(here, model, repeats)
        found["splice"] = splice.measure(Path(folder) / "splice")
        found["rounding"] = rounding.measure(model)
        found["wan"] = [far(Path(folder) / f"far{ms}", model, threads, ms, found) for ms in wan_ms]
    found["load_after"] = os.getloadavg()[0]
    return found


def near(here: Federation, model: str, repeats: int) -> dict[str, Any]:
    """One machine, two workers: speed, first token, eight streams, memory, losses."""
    url, alone = here.page_url, Alone(model)
    vocabulary = alone.config.vocab_size
    kinds: dict[str, list[Timing]] = {"plain": [], "packed": [], "network": []}
    eight = []
    for repeat in range(repeats + 1):
        prompt = random_prompt(vocabulary, _PROMPT, repeat)
        runs = {
            "plain": alone.plainly(prompt, _STEPS),
            "packed": alone.packed(prompt, _STEPS),
            "network": ask(url, model, prompt, _STEPS),
        }
        prompts = [random_prompt(vocabulary, 32, 1000 * repeat + i) for i in range(8)]
        total = together(url, model, prompts, _STEPS)
        if repeat:  # the first round warms up
            eight.append(total)
            for kind, timing in runs.items():
                kinds[kind].append(timing)
    picture = state(url)
    medians = {kind: median(timings, "tok_per_s") for kind, timings in kinds.items()}
    return {
        "tok_per_s": medians,
        "first_s": {kind: median(timings, "first_s") for kind, timings in kinds.items()},
        "ratio": {kind: ratio(kinds["network"], kinds[kind], "tok_per_s") for kind in ("plain", "packed")},
        "first_ratio": {
            kind: ratio(kinds["network"], kinds[kind], "first_s") for kind in ("plain", "packed")
        },
        "eight_tok_per_s": statistics.median(eight),
        "eight_ratio": statistics.median(eight) / medians["network"],
        "memory": memory_beside_weights(here, here.workers[0]),
        "floor_percent": picture["floor_percent"],
        "hop_ms": [span["hop_ms"] for span in picture["spans"]],
        "losses": [
            loss(here, model, vocabulary, how, n) for how in ("kill", "freeze") for n in range(repeats)
        ],
    }


def median(timings: list[Timing], field: str) -> float:
    """The median of one field."""
    return statistics.median(getattr(timing, field) for timing in timings)


def ratio(ours: list[Timing], theirs: list[Timing], field: str) -> float:
    """The median of the ratios of neighbouring runs."""
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(getattr(our, field) / getattr(their, field) for our, their in pairs)


def loss(here: Federation, model: str, vocabulary: int, how: str, repeat: int) -> dict[str, Any]:
    """Lose the last worker in the middle of a stream: seconds until the next token, less the recomputing."""
    url, prompt = here.page_url, random_prompt(vocabulary, _PROMPT, 7000 + repeat)
    while len(state(url)["spans"]) < 2:
        time.sleep(0.2)
    calm = ask(url, model, prompt, _STEPS)
    victim = {w.name: w for w in here.workers}[state(url)["spans"][-1]["name"]]
    harmed_s: list[float] = []

    def harm() -> None:
        harmed_s.append(time.perf_counter())
        getattr(victim, how)()

    prompt = [*prompt[:-1], prompt[0]]
    undisturbed = ask(url, model, prompt, _STEPS).text
    harmed = ask(url, model, prompt, _STEPS, (24, harm))
    next_s = min(at for at in harmed.at_s if at > harmed_s[0] + 0.2)
    again = ask(url, model, random_prompt(vocabulary, _PROMPT + 24, 9000 + repeat), 2)
    if how == "freeze":
        victim.thaw()
    else:
        victim.restart()
        victim.await_ready(60)
    return {
        "how": how,
        "next_token_s": next_s - harmed_s[0],
        "recompute_s": again.first_s,
        "beyond_recompute_s": next_s - harmed_s[0] - again.first_s,
        "same_text": harmed.text == undisturbed,
        "calm_tok_per_s": calm.tok_per_s,
    }


def far(folder: Path, model: str, threads: int, ms: int, near_found: dict[str, Any]) -> dict[str, Any]:
    """Two workers, each behind a link of ``ms`` round trip: tokens/s beside compute + 3 half round trips."""
    links: list[EmulatedLink] = []
    with Federation(
        folder, model=model, workers=0, spread=2, port=0, coordinator_port=0, threads=threads
    ) as here:
        for name in ("far-1", "far-2"):
            port = some_port()
            links.append(EmulatedLink(("127.0.0.1", port), rtt_s=ms / 1e3, jitter_s=ms / 2e4))
            more = ["--threads", str(threads)]
            far_worker(here, name, f"127.0.0.1:{links[-1].port}", port, more)
        here.await_pipeline(120)
        while len(state(here.page_url)["spans"]) < 2:
            time.sleep(0.2)
        vocabulary = store.resolve(model).config.vocab_size
        runs = [ask(here.page_url, model, random_prompt(vocabulary, 32, seed), _STEPS) for seed in range(6)][
            1:
        ]
        picture = state(here.page_url)
    for link in links:
        link.close()
    floor_s = 1 / near_found["tok_per_s"]["packed"] + 3 * ms / 2e3
    speed = statistics.median(run.tok_per_s for run in runs)
    return {
        "rtt_ms": ms,
        "tok_per_s": speed,
        "floor_tok_per_s": 1 / floor_s,
        "percent_of_floor": 100 * speed * floor_s,
        "first_s": statistics.median(run.first_s for run in runs),
        "own_floor_percent": picture["floor_percent"],
    }


def main() -> None:
    """Measure, print the table, write the JSON if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--wan", type=int, nargs="*", default=[20, 60, 120], help="round trips in ms")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = measure(given.model, given.threads, given.repeats, given.wan)
    if given.out:
        store.atomic.write_bytes(given.out, json.dumps(found, indent=2).encode())
    Console(width=130).print(table(found))


if __name__ == "__main__":
    main()
