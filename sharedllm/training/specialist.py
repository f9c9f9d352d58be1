"""Specialists of the toy regime: the base, trained on for about a minute on one domain, cached by content.

Two specialists of one base share its tokenizer, so they can be mixed. The result is kept under the hashes of
everything that made it; the second call for the same specialist returns at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from sharedllm.corpus import Domain
from sharedllm.errors import BadModelFile
from sharedllm.model import Transformer
from sharedllm.store import Loaded, cached, canonical_json
from sharedllm.training.data import Streams, encode
from sharedllm.training.loop import OnStep, duplicate, train
from sharedllm.training.recipe import SPECIALIST, Recipe

__all__ = ["load_specialist", "specialist"]

_FORMAT = 1  # raise it when the loop comes to compute something else: older results are then not used
_WEIGHTS = "weights.safetensors"


def specialist(
    base: Loaded, domain: Domain, recipe: Recipe = SPECIALIST, *, seed: int, on_step: OnStep | None = None
) -> Path:
    """Train ``base`` on the training split of ``domain`` and return the folder of the result.

    The folder holds ``weights.safetensors`` (fp32) and ``report.json`` (losses in nats per token, tokens,
    seconds). Raises ``BadRecipe`` when it diverges, ``WriteFailed``.
    """
    key: dict[str, Any] = {
        "format": _FORMAT,
        "weights": base.manifest.weights_sha256,
        "tokenizer": base.manifest.tokenizer_sha256,
        "domain": domain.sha256,
        "recipe": recipe.to_dict(),
        "seed": seed,
    }

    def compute(folder: Path) -> None:
        model = duplicate(base.model)
        streams = Streams({domain.name: encode(base.tokenizer, domain.train)})
        report = train(model, streams, recipe, seed=seed, on_step=on_step)
        safetensors.torch.save_file(model.state_dict(), folder / _WEIGHTS)
        summary = {
            "losses_nats": list(report.losses_nats),
            "tokens": report.tokens,
            "seconds": report.seconds,
        }
        (folder / "report.json").write_bytes(canonical_json(summary))

    return cached("specialist", key, compute)


def load_specialist(path: Path, base: Loaded) -> Transformer:
    """Return the specialist in ``path`` as a live model of its own, on the CPU in fp32.

    Raises ``BadModelFile`` when the folder belongs to another base or is damaged.
    """
    try:
        key = json.loads((path / "key.json").read_bytes())
        tensors = safetensors.torch.load_file(path / _WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise BadModelFile(
            f"{path} holds no whole specialist ({error}); delete it and train it again."
        ) from error
    if key.get("weights") != base.manifest.weights_sha256:
        raise BadModelFile(
            f"The specialist in {path} comes from a base with weights {key.get('weights')}, but this base "
            f"has {base.manifest.weights_sha256}; train it again from this base."
        )
    model = Transformer(base.model.config)
    model.load_state_dict(tensors)
    return model.eval()
