"""How the network is measured: one process without it, streams through it, and harm done on the way."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import psutil
import torch

from sharedllm import store
from sharedllm.engines import Ends, Stage, Work
from sharedllm.model import Sampling, generate
from sharedllm.nodes.local import Federation, Process
from sharedllm.wire import Codec, Op, Segment, StepMeta, Want, decode, encode

__all__ = ["Alone", "Timing", "ask", "memory_beside_weights", "together"]


@dataclasses.dataclass(frozen=True)
class Timing:
    """One request: seconds to its first token, tokens per second after it, and when each token came."""

    first_s: float
    tok_per_s: float
    at_s: tuple[float, ...] = ()
    text: str = ""


class Alone:
    """The same model in one process: as ``generate`` runs it, and with the engine's packed weights."""

    def __init__(self, name: str) -> None:
        manifest = store.resolve(name)
        self.loaded = store.load(name)
        self.config = manifest.config
        self.ends = Ends.opened(manifest)
        self.stage = Stage.opened(manifest, 0, manifest.config.layers)

    def plainly(self, prompt: Sequence[int], steps: int) -> Timing:
        """Time ``model.generate``."""
        at_s: list[float] = []
        began_s = time.perf_counter()
        sampling = Sampling(max_tokens=steps)
        generate(
            self.loaded.model,
            self.loaded.tokenizer,
            [list(prompt)],
            sampling,
            lambda *_: at_s.append(time.perf_counter()),
        )
        return Timing(at_s[0] - began_s, (len(at_s) - 1) / (at_s[-1] - at_s[0]))

    def packed(self, prompt: Sequence[int], steps: int) -> Timing:
        """Time the engine's own loop, without anything between its parts."""
        work = Work(self.stage, 1 << 30, {}, last=True)
        tokens, fed, at_s = list(prompt), 0, []
        began_s = time.perf_counter()
        while len(at_s) < steps:
            left = len(prompt) - fed
            rows, op = (min(64 - fed % 64, left), Op.CHUNK) if left > 0 else (1, Op.ROWS)
            h_RD = self.ends.embed(tokens[fed : fed + rows])
            meta = StepMeta((Segment(op, 1, fed, rows, Want.LAST),), Codec.FP32, self.config.width, rows)
            meta, body = work.step(meta, encode(h_RD, Codec.FP32), 0.0, 0)
            fed += rows
            if fed == len(tokens):
                last_RD = decode(body, meta.codec, meta.rows, meta.width)
                tokens.append(int(self.ends.logits(last_RD)[0].argmax()))
                at_s.append(time.perf_counter())
        return Timing(at_s[0] - began_s, (steps - 1) / (at_s[-1] - at_s[0]))


def ask(
    url: str,
    model: str,
    prompt: Sequence[int],
    steps: int,
    harm: tuple[int, Callable[[], object]] | None = None,
) -> Timing:
    """Stream a greedy completion; ``harm`` is done after so many tokens, from this thread."""
    body = {"model": model, "prompt": list(prompt), "max_tokens": steps, "temperature": 0, "stream": True}
    at_s: list[float] = []
    text = ""
    with httpx.Client(timeout=300) as client:
        began_s = time.perf_counter()
        with client.stream("POST", f"{url}/v1/completions", json=body) as response:
            if response.status_code != 200:
                raise RuntimeError(response.read().decode())
            for line in response.iter_lines():
                if not line.startswith("data: {"):
                    continue
                choices = json.loads(line[6:])["choices"]
                if not choices or not choices[0].get("sharedllm", {}).get("token", 0) >= 0:
                    continue
                at_s.append(time.perf_counter())
                text += choices[0]["text"]
                if harm is not None and len(at_s) == harm[0]:
                    harm[1]()
    speed = (len(at_s) - 1) / (at_s[-1] - at_s[0]) if len(at_s) > 1 else 0.0
    return Timing(at_s[0] - began_s, speed, tuple(at_s), text)


def together(url: str, model: str, prompts: Sequence[Sequence[int]], steps: int) -> float:
    """Total tokens per second of several streams that begin together."""
    timings: list[Timing] = []
    threads = [
        threading.Thread(target=lambda p=prompt: timings.append(ask(url, model, p, steps)))
        for prompt in prompts
    ]
    began_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last_s = max(timing.at_s[-1] for timing in timings)
    return sum(len(timing.at_s) for timing in timings) / (last_s - began_s)


def memory_beside_weights(federation: Federation, worker: Process) -> dict[str, float]:
    """Resident memory of a worker's processes, and of that what is neither weights nor caches, in MB."""
    parent = psutil.Process(worker.pid)
    resident = sum(p.memory_full_info().uss for p in [parent, *parent.children(recursive=True)])
    shared = sum(p.memory_info().rss for p in [parent, *parent.children(recursive=True)])
    node = next(n for n in federation.status()["nodes"] if n["name"] == worker.name)
    held = node["weights_bytes"] + node["kv_bytes"]
    return {
        "resident_mb": shared / 1e6,
        "own_mb": resident / 1e6,
        "weights_mb": node["weights_bytes"] / 1e6,
        "beside_mb": (resident - held) / 1e6,
        "resident_beside_mb": (shared - held) / 1e6,
    }


def state(url: str) -> dict[str, Any]:
    """The primary's picture of itself."""
    found: dict[str, Any] = httpx.get(f"{url}/v1/sharedllm/state").json()
    return found


def random_prompt(vocabulary: int, length: int, seed: int) -> list[int]:
    """A prompt that no cache knows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(100, vocabulary, (length,), generator=generator).tolist()
