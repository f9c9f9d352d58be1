"""Base models from scratch: tokenizer, weights, held-out loss, provenance, from a recipe, a seed and public
text.

*Covered*: the base trains on the training split of each always-available domain and on nothing else; what is
reported is the test split, which chose nothing. *Not covered*: the text of the domain ``code`` is that of the
running Python, so two versions of Python give two bases; their hashes differ, and the manifest says so.
"""

from __future__ import annotations

import dataclasses
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sharedllm import corpus
from sharedllm.errors import BadRecipe, UnknownName
from sharedllm.model import THIRTY_M_CONFIG, TOY_CONFIG, Config, Tokenizer, Transformer, train_tokenizer
from sharedllm.store import Loaded, Manifest, enter, keep_ternary, load, save
from sharedllm.training import ternary
from sharedllm.training.data import Streams, encode
from sharedllm.training.evaluate import held_out, overall
from sharedllm.training.loop import OnStep, Report, duplicate, time_steps, train
from sharedllm.training.recipe import THIRTY_M, TOY, TOY_TERNARY, Recipe

__all__ = [
    "BASES",
    "Prepared",
    "base",
    "budget_for",
    "domain_losses",
    "keep",
    "prepare",
    "surroundings",
    "train_base",
]

BASES: dict[str, tuple[Recipe, Config]] = {
    "toy": (TOY, TOY_CONFIG),
    "toy-ternary": (TOY_TERNARY, TOY_CONFIG),
    "30m": (THIRTY_M, THIRTY_M_CONFIG),
}

_LICENCE = "Apache-2.0"
_EVALUATED_BYTES = 4_000
_EVALUATED_DOCUMENTS = 32


@dataclass(frozen=True)
class Prepared:
    """What a run starts from: an untrained model, its tokenizer, and the streams it will read."""

    model: Transformer
    tokenizer: Tokenizer
    streams: Streams
    text: dict[str, str]  # domain -> Domain.sha256


def base(name: str, *, seed: int = 0, on_step: OnStep | None = None) -> Loaded:
    """Return the base called ``name``, training and saving it first if there is none.

    Raises ``UnknownName``, and what fetching and training raise.
    """
    recipe, _ = _known(name)
    try:
        return load(name)
    except UnknownName:
        prepared = prepare(name, seed=seed)
        report = train_base(prepared, recipe, seed=seed, on_step=on_step)
        keep(name, prepared, recipe, report, seed=seed)
        return load(name)


def _known(name: str) -> tuple[Recipe, Config]:
    if name not in BASES:
        raise UnknownName(f"There is no recipe for a base {name!r}; there are {', '.join(BASES)}.")
    return BASES[name]


def prepare(name: str, *, seed: int, device: str = "cpu") -> Prepared:
    """Train the tokenizer, encode the text and draw the weights of the base called ``name``.

    Raises ``UnknownName``, ``DownloadFailed``, and ``BadRecipe`` for a device that is not there.
    """
    _, config = _known(name)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BadRecipe(f"The device is {device!r}, but torch finds no GPU here; use --device cpu.")
    mix = corpus.base_mix()
    tokenizer = train_tokenizer((d.text for documents in mix.values() for d in documents), config.vocab_size)
    streams = Streams({name: encode(tokenizer, documents) for name, documents in mix.items()})
    torch.manual_seed(seed)
    model = Transformer(dataclasses.replace(config, vocab_size=tokenizer.vocab_size)).to(device)
    return Prepared(model, tokenizer, streams, {name: corpus.domain(name).sha256 for name in mix})


def budget_for(
    seconds: float, prepared: Prepared, recipe: Recipe, *, clock: Callable[[], float] = time.perf_counter
) -> Recipe:
    """Turn a time budget into the token budget that this machine manages in it, measured on a copy of the
    model.

    From here on the run counts tokens, so that it resumes and repeats exactly; a machine that slows down
    takes longer. Raises ``BadRecipe`` when the time does not suffice for one step.
    """
    per_step_s = time_steps(duplicate(prepared.model), prepared.streams, recipe, clock)
    steps = int(seconds / per_step_s)
    if steps < 1:
        raise BadRecipe(
            f"A step of {recipe.name} takes {per_step_s:.1f} s here, but the budget is {seconds:.1f} s; "
            "give more time."
        )
    return dataclasses.replace(recipe, tokens=steps * recipe.tokens_per_step)


def train_base(
    prepared: Prepared,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
) -> Report:
    """Train what `prepare` made, in place; see `train`."""
    return train(prepared.model, prepared.streams, recipe, seed=seed, checkpoint=checkpoint, on_step=on_step)


def domain_losses(
    model: Transformer, tokenizer: Tokenizer, split: corpus.Split, *, window: int
) -> dict[str, float]:
    """Return bits per byte on each base domain's ``split``: 4,000 bytes of each of 32 documents spread over
    it.
    """
    losses = {}
    for name in corpus.BASE_DOMAINS:
        documents = getattr(corpus.domain(name), split)
        spread = documents[:: -(-len(documents) // _EVALUATED_DOCUMENTS)]
        scored = held_out(model, tokenizer, spread, window=window, at_most_bytes=_EVALUATED_BYTES)
        losses[name] = overall(scored)
    return losses


def keep(name: str, prepared: Prepared, recipe: Recipe, report: Report, *, seed: int) -> Manifest:
    """Evaluate a trained base on the test split and save it with its provenance; ``load(name)`` finds it.

    What is evaluated is what is stored: weights rounded to fp16, or a ternary base's own file.
    """
    model, provenance = prepared.model.to("cpu"), _provenance(prepared, recipe, report, seed)
    if recipe.weights == "ternary":
        return _keep_ternary(name, prepared, recipe, provenance)
    rounded = duplicate(model).half().float().eval()
    provenance |= {"test_bits_per_byte": _test_losses(rounded, prepared, recipe)}
    return save(name, model, prepared.tokenizer, licence=_LICENCE, provenance=provenance, dtype=torch.float16)


def _keep_ternary(name: str, prepared: Prepared, recipe: Recipe, provenance: dict[str, Any]) -> Manifest:
    """Keep the trits of the last step; the loss with fp32 embeddings and routers stands beside the file's."""
    model, tokenizer = prepared.model, prepared.tokenizer
    weights = ternary.at_rest(model, recipe.scale, recipe.per)
    arms = {
        "test_bits_per_byte": ternary.as_stored(model, tokenizer, weights),
        "test_bits_per_byte_fp32_embeddings": ternary.restored_model(model, recipe.scale, recipe.per),
    }
    provenance |= {arm: _test_losses(evaluated, prepared, recipe) for arm, evaluated in arms.items()}
    kept = keep_ternary(name, model.config, tokenizer, weights, licence=_LICENCE, provenance=provenance)
    return enter(kept)


def _test_losses(model: Transformer, prepared: Prepared, recipe: Recipe) -> dict[str, float]:
    found = domain_losses(model, prepared.tokenizer, "test", window=recipe.window)
    return {domain: round(loss, 4) for domain, loss in found.items()}


def _provenance(prepared: Prepared, recipe: Recipe, report: Report, seed: int) -> dict[str, Any]:
    return {
        "recipe": recipe.to_dict(),
        "seed": seed,
        "text_sha256": prepared.text,
        "tokens": report.tokens,
        "seconds": round(report.seconds, 1),
        "last_loss_nats": round(sum(report.losses_nats[-20:]) / len(report.losses_nats[-20:]), 4),
        **surroundings(next(prepared.model.parameters()).device),
    }


def surroundings(device: torch.device) -> dict[str, str]:
    """Say what code on what machine trains, as provenance tells it."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hardware": _hardware(device),
    }


def _commit() -> str:
    """Name the commit that trained, with ``+dirty`` when files differ from it; ``unknown`` outside a
    checkout.
    """
    here = Path(__file__).parent
    answers = []
    for question in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", str(here.parent)]):
        try:
            asked = subprocess.run(["git", *question], cwd=here, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return "unknown"
        answers.append(asked.stdout.strip())
    return answers[0] + ("+dirty" if answers[1] else "")


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return f"{cpu}, {torch.get_num_threads()} threads"
