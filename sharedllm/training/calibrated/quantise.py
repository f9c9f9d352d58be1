"""A trained model to trits, by a scheme, and what became of it on the way; every stage is kept by content.

| scheme | planes | matrices | afterwards |
|---|---:|---|---|
| ``rounded`` | 1 | nearest, least squared error per group | nothing: this is the arm that fails |
| ``fed-back`` | 1 | errors fed back, layer by layer | nothing |
| ``repaired`` | 1 | as ``fed-back`` | gains learnt |
| ``rescaled`` | 1 | as ``fed-back`` | scales and gains learnt |
| ``calibrated`` | 1 | as ``fed-back`` | trits, scales and gains learnt |
| ``planes-rounded`` | 2 | nearest | nothing |
| ``planes-fed-back`` | 2 | errors fed back | nothing |
| ``planes`` | 2 | as ``planes-fed-back`` | gains learnt |

*Covered*: a killed run goes on at its last finished layer or stage; equal model, texts, effort and seed give
equal bits on one machine and thread count. *Not covered*: calibration text in other languages or registers
than those of use.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sharedllm.errors import BadRecipe
from sharedllm.model import Transformer
from sharedllm.store import Loaded, Progress, cached, canonical_json, home, sha256_of
from sharedllm.store.ternary import TernaryTensor, Weight, is_hidden
from sharedllm.training.calibrated.feedback import group_of, rounded
from sharedllm.training.calibrated.repair import Budget, repaired
from sharedllm.training.calibrated.student import Learnt
from sharedllm.training.calibrated.texts import Texts
from sharedllm.training.calibrated.walk import parts_of, walk, weights_of

__all__ = ["SCHEMES", "Effort", "Quantised", "quantise"]

_VERSION = 1  # raise it when the same inputs give other trits: kept ones are then made again


@dataclass(frozen=True)
class _Scheme:
    planes: int
    fed_back: bool
    learnt: Learnt | None = None


SCHEMES: Mapping[str, _Scheme] = {
    "rounded": _Scheme(1, False),
    "fed-back": _Scheme(1, True),
    "repaired": _Scheme(1, True, "gains"),
    "rescaled": _Scheme(1, True, "scales"),
    "calibrated": _Scheme(1, True, "trits"),
    "planes-rounded": _Scheme(2, False),
    "planes-fed-back": _Scheme(2, True),
    "planes": _Scheme(2, True, "gains"),
}


@dataclass(frozen=True)
class Effort:
    """What calibration may spend: ``windows`` of ``window`` tokens for the layers, budgets to learn.

    ``group`` weights share a scale, or the most below that divide a row; ``bf16`` runs the products of
    learning in bfloat16. ``gains`` is the budget where gains alone are learnt, ``trits`` that of all else.
    """

    windows: int = 96
    window: int = 256
    group: int = 64
    gains: Budget = field(default_factory=lambda: Budget(32_768, (0.003, 0.01, 0.03)))
    trits: Budget = field(default_factory=lambda: Budget(131_072, (0.01,)))
    bf16: bool = False


@dataclass(frozen=True)
class Quantised:
    """Every weight of a model as it is to be kept, and the numbers of its making.

    ``report``: of what was learnt, the ``rate`` and ``validation_nats``, (step, nats per token from the full
    model).
    """

    weights: dict[str, Weight]
    report: dict[str, Any]

    def matrices(self) -> dict[str, TernaryTensor]:
        """The weights that are trits."""
        return {name: weight for name, weight in self.weights.items() if isinstance(weight, TernaryTensor)}

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight of the matrices takes, scales and padding included."""
        found = self.matrices().values()
        n_bytes = sum(weight.trits.nbytes + weight.scales.nbytes for weight in found)
        return 8 * n_bytes / sum(torch.Size(weight.shape).numel() for weight in found)


def quantise(
    base: Loaded,
    texts: Texts,
    scheme: str,
    effort: Effort,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Quantised:
    """Turn a model's hidden matrices into trits by ``scheme``; the base stays as it is.

    Found again if it was made before. Raises ``BadRecipe`` for an unknown scheme, text that is too short, or
    NaN on the way, ``WriteFailed``.
    """
    if scheme not in SCHEMES:
        raise BadRecipe(f"There is no scheme {scheme!r}; there are {', '.join(SCHEMES)}.")
    chosen = SCHEMES[scheme]
    model = base.model
    key = {"version": _VERSION, "weights": base.manifest.weights_sha256, "group": effort.group}
    key |= {"planes": chosen.planes, "fed_back": chosen.fed_back}
    if not chosen.fed_back:
        return _whole(model, {}, _rounded(model, chosen.planes, effort.group), {})
    key |= {"texts": texts.sha256, "windows": effort.windows, "window": effort.window, "seed": seed}
    folder = cached(
        "calibrated", key, lambda to: _walked(model, texts, effort, chosen, key, to, seed, progress)
    )
    gains, weights, report = _read(folder, model)
    learnt = chosen.learnt
    if learnt is None:
        return _whole(model, gains, weights, report)
    budget = effort.gains if learnt == "gains" else effort.trits
    key |= {"learnt": learnt, "budget": dataclasses.asdict(budget), "bf16": effort.bf16}

    def learn(to: Path) -> None:
        done = repaired(
            model,
            weights,
            texts,
            budget,
            learnt=learnt,
            seed=seed,
            kept=_waiting(key),
            precision=torch.bfloat16 if effort.bf16 else torch.float32,
            progress=progress,
        )
        said = {"rate": done.rate, "validation_nats": [list(pair) for pair in done.validation_nats]}
        _write(to, done.gains, done.weights, said)
        shutil.rmtree(_waiting(key), ignore_errors=True)

    return _whole(model, *_read(cached("calibrated", key, learn), model))


def _walked(
    model: Transformer,
    texts: Texts,
    effort: Effort,
    chosen: _Scheme,
    key: Mapping[str, Any],
    to: Path,
    seed: int,
    progress: Progress | None,
) -> None:
    """Feed errors back through all layers; what is finished waits beside the cache until all of it is."""
    kept = _waiting(key)
    tokens_NT = texts.windows("train", 0, seed, effort.windows, effort.window)[:, :-1]
    weights = walk(model, tokens_NT, planes=chosen.planes, group=effort.group, kept=kept, progress=progress)
    _write(to, {}, weights, {})
    shutil.rmtree(_waiting(key), ignore_errors=True)


def _waiting(key: Mapping[str, Any]) -> Path:
    return home() / "calibrating" / sha256_of(dict(key))


@torch.no_grad()
def _rounded(model: Transformer, planes: int, group: int) -> dict[str, TernaryTensor]:
    found = {}
    for name, weight in model.named_parameters():
        if is_hidden(name):
            size = group_of(weight.shape[-1], group)
            rows = rounded(weight.detach().flatten(0, -2), planes=planes, group=size)
            trits = rows.trits_POI.view(planes, *weight.shape)
            scales = rows.scales_POG.reshape(planes, *weight.shape[:-1], -1)
            found[name] = TernaryTensor.of(*zip(trits, scales, strict=True))
    return found


def _whole(
    model: Transformer,
    gains: Mapping[str, Tensor],
    weights: Mapping[str, TernaryTensor],
    report: dict[str, Any],
) -> Quantised:
    """Every weight of the model by name, in its order."""
    state: dict[str, Weight] = {name: weight.detach() for name, weight in model.state_dict().items()}
    return Quantised(state | dict(gains) | dict(weights), report)


def _write(
    to: Path, gains: Mapping[str, Tensor], weights: Mapping[str, TernaryTensor], report: Mapping[str, Any]
) -> None:
    safetensors.torch.save_file({**parts_of(weights), **gains}, to / "weights.safetensors")
    (to / "report.json").write_bytes(canonical_json(dict(report)))


def _read(
    folder: Path, model: Transformer
) -> tuple[dict[str, Tensor], dict[str, TernaryTensor], dict[str, Any]]:
    parts = safetensors.torch.load_file(folder / "weights.safetensors")
    shapes = {name: tuple(w.shape) for name, w in model.named_parameters() if is_hidden(name)}
    gains = {name: parts[name] for name in model.gains() if name in parts}
    return gains, weights_of(parts, shapes), json.loads((folder / "report.json").read_bytes())
