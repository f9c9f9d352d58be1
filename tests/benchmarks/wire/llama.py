"""llama.cpp on random weights, for ``kernel``: in processes of their own that decode when they are asked to.

``LLAMA_PYTHON`` names an interpreter that has ``xllamacpp`` (on PyPI: a wheel with llama.cpp inside). The
files that it reads are written here. Its trits come in blocks of 256, so ``SHAPE`` is SmolLM2-135M's but for
the width, 512. Matrices of all layers are copies of the first's, each read anew. It states its own speeds.

*Covered*: TQ1_0, TQ2_0, Q4_1 and Q8_0, all with a Q8_0 embedding that is the head too. *Not covered*: what a
build for this very processor would do (the wheel stops at AVX2); the loss of its 8-bit activations.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from sharedllm.model import Config

__all__ = ["FORMATS", "SHAPE", "decoding", "interpreter", "write"]

SHAPE = Config(
    vocab_size=49_152, width=512, layers=30, heads=8, kv_heads=4, head_width=64, hidden=1536, context=2048
)
FORMATS = ("TQ1_0", "TQ2_0", "Q4_1", "Q8_0")
_NAMES = {
    "attn_q": (512, 512),
    "attn_k": (256, 512),
    "attn_v": (256, 512),
    "attn_output": (512, 512),
    "ffn_gate": (1536, 512),
    "ffn_up": (1536, 512),
    "ffn_down": (512, 1536),
}
_ASKED = """
import json, sys, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.n_parallel, settings.warmup = sys.argv[1], 512, 1, True
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = int(sys.argv[2])
server = xllamacpp.Server(settings)
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    prompt = [7] * 8
    told = server.handle_completions({"prompt": prompt, "n_predict": int(line), "ignore_eos": True})
    print(json.dumps(told["timings"]["predicted_per_second"]), flush=True)
"""


def interpreter() -> str | None:
    """The interpreter that has llama.cpp, if one was named."""
    return os.environ.get("LLAMA_PYTHON")


def write(path: Path, form: str) -> None:
    """A model of ``SHAPE`` with random weights of a format."""
    kind, drawn = Kind[form], np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(SHAPE.context)
    writer.add_embedding_length(SHAPE.width)
    writer.add_block_count(SHAPE.layers)
    writer.add_feed_forward_length(SHAPE.hidden)
    writer.add_head_count(SHAPE.heads)
    writer.add_head_count_kv(SHAPE.kv_heads)
    writer.add_layer_norm_rms_eps(SHAPE.norm_eps)
    writer.add_rope_dimension_count(SHAPE.head_width)
    writer.add_vocab_size(SHAPE.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{number}" for number in range(SHAPE.vocab_size)])
    writer.add_token_types([1] * SHAPE.vocab_size)
    writer.add_token_merges(["t 1"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    ones = np.ones(SHAPE.width, dtype=np.float32)
    table = drawn.standard_normal((SHAPE.vocab_size, SHAPE.width), dtype=np.float32)
    _add(writer, "token_embd.weight", table, Kind.Q8_0)
    writer.add_tensor("output_norm.weight", ones)
    matrices = {
        name: gguf.quants.quantize(drawn.standard_normal(shape, dtype=np.float32), kind)
        for name, shape in _NAMES.items()
    }
    for layer in range(SHAPE.layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", ones)
        for name, matrix in matrices.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", matrix, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: gguf.GGUFWriter, name: str, weight: np.ndarray[Any, Any], kind: Kind) -> None:
    writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)


class Decoding:
    """A process of llama.cpp with one model loaded."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tok_per_s(self, tokens: int) -> float:
        """Decode so many tokens behind a short prompt, and say how fast."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{tokens}\n")
        self._process.stdin.flush()
        return float(self._heard())

    def _heard(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                return str(json.loads(line))
        raise RuntimeError(f"llama.cpp ended with {self._process.wait()}.")


@contextlib.contextmanager
def decoding(python: str, path: Path, threads: int) -> Iterator[Decoding]:
    """Start llama.cpp on a file, and end it afterwards."""
    process = subprocess.Popen(
        [python, "-c", _ASKED, str(path), str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        found = Decoding(process)
        found._heard()
        yield found
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
