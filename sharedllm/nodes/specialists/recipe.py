"""The recipe: one domain and one base become a signed specialist that says how it was made.

A base that was trained here (``toy``, ``30m``) is small enough to be trained on, whole: two fp16 blobs of its
own. A pretrained one gets a norm adapter: one fp16 blob of some 76 KB on SmolLM2-135M, which shares the
base's weights with every other specialist of that base, and runs in the same batch.

*Covered*: training reads the domain's training split alone; the step that is kept was chosen on validation;
what is reported is the test split, which chose nothing, under the weights as they are kept (fp16). *Not
covered*: a learning rate for each domain; the default is the one that was best for three authors on this
base (``adapters.CENTRES``).
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import adapters, corpus, store, training
from sharedllm.model import Transformer, token_nats
from sharedllm.shapes import bits_per_byte
from sharedllm.store import Loaded, Manifest, Progress, specialists

__all__ = ["ADAPTER_BUDGET", "trained"]

ADAPTER_BUDGET = adapters.Budget(tokens=24_576, batch=4, window=128, evaluations=3, validation=2_048)
_PRECISION = "bf16"
_AT_REST = "fp16"
# bytes of text to encode for each token of a fit: some ten times what it will see, and no more
_TEXT_PER_TOKEN = 40
_TEST_TOKENS, _TEST_WINDOW = 3_072, 128
_DIGITS = 4


def trained(
    domain: str,
    base_name: str,
    *,
    name: str,
    private: Ed25519PrivateKey,
    seed: int = 0,
    tokens: int | None = None,
    lr: float | None = None,
    progress: Progress | None = None,
) -> specialists.Signed:
    """Train a specialist of ``domain`` on a base, sign it with ``private``, and publish it in the store.

    ``tokens`` and ``lr`` replace the recipe's; ``lr`` is for adapters. Training the same again takes what was
    trained. Raises ``UnknownName``, ``MissingSource``, ``BadRecipe``, ``WriteFailed``.
    """
    text = corpus.domain(domain)
    base = store.load(base_name, progress=progress)
    make = _whole if base_name in training.BASES else _adapted
    body = make(base, text, name, seed, tokens, lr, progress)
    tested = _tested(base, specialists.sign(body, private), text)
    made = {
        "base": {"name": base.manifest.name, "weights_sha256": base.manifest.weights_sha256},
        "domain": domain,
        "text_sha256": text.sha256,
        "text_licence": text.licence,
        "seed": seed,
        "test": tested,
        **training.surroundings(torch.device("cpu")),
    }
    signed = specialists.sign(dataclasses.replace(body, provenance={**made, **body.provenance}), private)
    specialists.publish(name, signed)
    return signed


def _whole(
    base: Loaded,
    text: corpus.Domain,
    name: str,
    seed: int,
    tokens: int | None,
    lr: float | None,
    progress: Progress | None,
) -> Manifest:
    """Train all weights on, as ``training.SPECIALIST`` says."""
    recipe = training.SPECIALIST
    recipe = dataclasses.replace(recipe, tokens=tokens or recipe.tokens, lr=lr or recipe.lr)

    def on_step(step: training.Step) -> None:
        if progress is not None:
            doing = f"Training {name}, {step.loss_nats:.3f} nats, {step.tok_per_s:,.0f} tok/s"
            progress(doing, step.step + 1, step.steps)

    folder = training.specialist(base, text, recipe, seed=seed, on_step=on_step)
    model = training.load_specialist(folder, base)
    provenance = {"recipe": recipe.to_dict(), "tokens": recipe.steps * recipe.tokens_per_step}
    return store.keep_model(
        name,
        model,
        base.tokenizer,
        licence=base.manifest.licence,
        provenance=provenance,
        dtype=torch.float16,
    )


def _adapted(
    base: Loaded,
    text: corpus.Domain,
    name: str,
    seed: int,
    tokens: int | None,
    lr: float | None,
    progress: Progress | None,
) -> Manifest:
    """Fit a norm adapter."""
    budget = dataclasses.replace(ADAPTER_BUDGET, tokens=tokens or ADAPTER_BUDGET.tokens)
    rate = lr or adapters.CENTRES["norm"]
    fit = adapters.fit_cached(
        base,
        corpus.sampled(base.tokenizer.encode, text.train, _TEXT_PER_TOKEN * budget.tokens),
        corpus.sampled(base.tokenizer.encode, text.validation, _TEXT_PER_TOKEN * budget.validation),
        "norm",
        rate,
        seed,
        budget,
        precision=_PRECISION,
        progress=progress,
    )
    provenance = {
        "recipe": {"method": "norm", "lr": rate, "precision": _PRECISION, **dataclasses.asdict(budget)},
        "tokens": len(fit.train_nats) * budget.batch * budget.window,
        "validation_nats": [[step, round(nats, _DIGITS)] for step, nats in fit.validation_nats],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        adapters.write(path, fit.adapter, _AT_REST)
        return specialists.with_adapter(name, base.manifest, "norm", path, provenance=provenance)


def _tested(base: Loaded, signed: specialists.Signed, text: corpus.Domain) -> dict[str, Any]:
    """Compare specialist and base on held-out excerpts: nats per token, bits per byte, documents won."""
    cut = corpus.excerpts(base.tokenizer.encode, text.test, _TEST_TOKENS, _TEST_WINDOW)
    model = specialists.live(signed).model
    nats = {"base": _nats(base.model, cut), "specialist": _nats(model, cut)}
    n_tokens = sum(len(excerpt.tokens) - 1 for excerpt in cut)
    n_bytes = sum(len(base.tokenizer.decode(excerpt.tokens[1:]).encode()) for excerpt in cut)
    gains: dict[str, float] = {}
    for excerpt, before, after in zip(cut, nats["base"], nats["specialist"], strict=True):
        gains[excerpt.document] = gains.get(excerpt.document, 0.0) + before - after
    return {
        "tokens": n_tokens,
        "documents": len(gains),
        "documents_better": sum(gain > 0 for gain in gains.values()),
        "nats_per_token": {arm: round(sum(of) / n_tokens, _DIGITS) for arm, of in nats.items()},
        "bits_per_byte": {arm: round(bits_per_byte(sum(of), n_bytes), _DIGITS) for arm, of in nats.items()},
    }


@torch.no_grad()
def _nats(model: Transformer, cut: Sequence[corpus.Excerpt]) -> list[float]:
    """The summed loss of each excerpt."""
    return [float(token_nats(model, torch.tensor([excerpt.tokens]))[0].double().sum()) for excerpt in cut]
