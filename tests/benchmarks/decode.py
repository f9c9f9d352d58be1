"""Decode and prefill speed beside transformers', in one process: ``python -m tests.benchmarks.decode``.

Both read the same tensors, greedily, with their own key/value cache, in fp32, with the same threads,
interleaved; medians are reported. The floor is the time that reading every weight once takes at this
machine's measured bandwidth: no decoder that reads all of its weights for each token can be faster.

*Not covered*: a machine that other programs keep busy (the load is printed; above a few tenths the figures
say more about the neighbours), batches, and lengths other than those asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Threads that wait asleep, not spinning: on a shared machine spinning cost 4× to 15× (measured).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlamaForCausalLM

from sharedllm import store
from sharedllm.model import Transformer, int8, join_weights
from tests.benchmarks.reference import as_transformers

Measurement = dict[str, float]
Runner = Callable[[Tensor, int], Measurement]


def ours(model: Transformer) -> Runner:
    """Time this project's decoder."""

    def run(prompt: Tensor, steps: int) -> Measurement:
        cache = model.cache(1, prompt.shape[1] + steps)
        return timed(lambda tokens: model(tokens, cache, last_only=True), prompt, steps)

    return run


def theirs(model: LlamaForCausalLM) -> Runner:
    """Time transformers' decoder."""

    def run(prompt: Tensor, steps: int) -> Measurement:
        state: dict[str, Any] = {"past_key_values": None}

        def step(tokens: Tensor) -> Tensor:
            output = model(tokens, use_cache=True, logits_to_keep=1, **state)
            state["past_key_values"] = output.past_key_values
            logits: Tensor = output.logits
            return logits

        return timed(step, prompt, steps)

    return run


def timed(step: Callable[[Tensor], Tensor], prompt: Tensor, steps: int) -> Measurement:
    """Prefill ``prompt``, decode ``steps`` tokens greedily: tokens per second of each."""
    began_s = time.perf_counter()
    token = step(prompt)[:, -1].argmax(-1, keepdim=True)
    filled_s = time.perf_counter()
    for _ in range(steps):
        token = step(token)[:, -1].argmax(-1, keepdim=True)
    ended_s = time.perf_counter()
    return {
        "prefill_tok_per_s": prompt.shape[1] / (filled_s - began_s),
        "decode_tok_per_s": steps / (ended_s - filled_s),
    }


def read_bandwidth_bytes_per_s(size: int) -> float:
    """How fast all threads together read ``size`` bytes of fp32: the best of seven passes."""
    numbers = torch.ones(size // 4)
    times_s = []
    for _ in range(7):
        began_s = time.perf_counter()
        numbers.sum()
        times_s.append(time.perf_counter() - began_s)
    return size / min(times_s)


def measure(name: str, repeats: int, prompt_length: int, steps: int) -> dict[str, Any]:
    """Run every decoder in turn, ``repeats`` times after a warm-up; return medians and conditions."""
    model = store.load(name).model.eval()
    join_weights(model)
    runners = {
        "ours": ours(model),
        "transformers": theirs(as_transformers(model)),
        "ours, int8": ours(int8(model)),
    }
    prompt = torch.randint(
        model.config.vocab_size, (1, prompt_length), generator=torch.Generator().manual_seed(0)
    )
    weights_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    runs: dict[str, list[Measurement]] = {name: [] for name in runners}
    bandwidths = []
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            bandwidths.append(read_bandwidth_bytes_per_s(weights_bytes))
            for label, run in runners.items():
                figures = run(prompt, steps)
                if repeat:
                    runs[label].append(figures)
    medians = {
        label: {key: statistics.median(run[key] for run in many) for key in many[0]}
        for label, many in runs.items()
    }
    return {
        "model": name,
        "threads": torch.get_num_threads(),
        "load_average_1_min": os.getloadavg()[0],
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "repeats": repeats,
        "prompt_tokens": prompt_length,
        "decoded_tokens": steps,
        "weights_bytes": weights_bytes,
        "read_bandwidth_bytes_per_s": statistics.median(bandwidths),
        "floor_tok_per_s": statistics.median(bandwidths) / weights_bytes,
        "medians": medians,
        "runs": runs,
    }


def table(result: dict[str, Any]) -> Table:
    """One row per decoder: speeds, ratios to transformers, and how close decoding is to the fp32 floor."""
    medians, floor = result["medians"], result["floor_tok_per_s"]
    base = medians["transformers"]
    title = (
        f"{result['model']}, {result['threads']} threads, {result['prompt_tokens']} prompt tokens; reading "
        f"{result['weights_bytes'] / 1e6:.0f} MB at {result['read_bandwidth_bytes_per_s'] / 1e9:.1f} GB/s: "
        f"at most {floor:.1f} fp32 tokens/s; load {result['load_average_1_min']:.1f}"
    )
    drawn = Table(title=title)
    for head in ("", "decode tok/s", "× transformers", "% of fp32 floor", "prefill tok/s", "× transformers"):
        drawn.add_column(head, justify="right" if head else "left")
    for label, median in medians.items():
        decode, prefill = median["decode_tok_per_s"], median["prefill_tok_per_s"]
        drawn.add_row(
            label,
            f"{decode:.1f}",
            f"{decode / base['decode_tok_per_s']:.2f}",
            f"{100 * decode / floor:.0f}",
            f"{prefill:.0f}",
            f"{prefill / base['prefill_tok_per_s']:.2f}",
        )
    return drawn


def main() -> None:
    """Measure, print the table, write the JSON if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m", help="a dense model that the store knows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=256, help="prompt length in tokens")
    parser.add_argument("--steps", type=int, default=64, help="tokens to decode")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = measure(arguments.model, arguments.repeats, arguments.prompt, arguments.steps)
    Console(width=120).print(table(result))
    if arguments.out:
        store.atomic.write_bytes(arguments.out, json.dumps(result, indent=2).encode())


if __name__ == "__main__":
    main()
