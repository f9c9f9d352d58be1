"""What rounding hidden states on the wire costs in bits per byte, with the model cut once in the middle."""

from __future__ import annotations

import math
from typing import Any

import torch

from sharedllm import corpus, store
from sharedllm.engines import Ends, Stage, Work
from sharedllm.wire import Codec, Op, Segment, StepMeta, Want, decode, encode

__all__ = ["measure"]

_CHUNK = 64


def measure(name: str, documents: int = 4, length: int = 512) -> dict[str, Any]:
    """Loss of each codec on held-out text of three domains, less that of fp32."""
    loaded = store.load(name)
    layers = loaded.manifest.config.layers
    ends = Ends(loaded.manifest.config, store.opened_ends(loaded.manifest))
    stages = [
        Stage(store.opened_span(loaded.manifest, *cut)) for cut in ((0, layers // 2), (layers // 2, layers))
    ]
    texts = [
        d.text for domain in ("code", "scripture", "drama") for d in corpus.domain(domain).test[:documents]
    ]
    nats = dict.fromkeys(Codec, 0.0)
    n_bytes = n_tokens = 0
    for text in texts:
        tokens = loaded.tokenizer.prompt(text)[:length]
        n_bytes += len(loaded.tokenizer.decode(tokens[1:]).encode())
        n_tokens += len(tokens) - 1
        for codec in Codec:
            nats[codec] += _nats(ends, stages, tokens, codec)
    bits = {codec.name.lower(): nats[codec] / math.log(2) / n_bytes for codec in Codec}
    lost = {codec: value - bits["fp32"] for codec, value in bits.items() if codec != "fp32"}
    return {"tokens": n_tokens, "bytes": n_bytes, "bits_per_byte": bits, "bits_per_byte_lost": lost}


def _nats(ends: Ends, stages: list[Stage], tokens: list[int], codec: Codec) -> float:
    """Total loss of a text whose hidden states are rounded at every border of the ring."""
    borders = {0: codec, **{stage.stop: codec for stage in stages}}
    works = [Work(stage, 1 << 30, borders, last=stage is stages[-1]) for stage in stages]
    rows = []
    for start in range(0, len(tokens), _CHUNK):
        part = tokens[start : start + _CHUNK]
        segment = Segment(Op.CHUNK, 1, start, len(part), Want.ALL)
        meta = StepMeta((segment,), codec, ends.config.width, len(part))
        body = encode(ends.embed(part), codec)
        for work in works:
            meta, body = work.step(meta, body, 0.0, 0)
        rows.append(ends.logits(decode(body, meta.codec, meta.rows, meta.width)))
    logp = torch.log_softmax(torch.cat(rows)[:-1].double(), dim=-1)
    return -float(logp.gather(1, torch.tensor(tokens[1:])[:, None]).sum())
