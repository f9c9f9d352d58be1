"""Recipes: everything that decides what a training run computes, in one frozen value that is recorded with
it.

Learning rates of `TOY` were chosen on the validation splits, at 400,000 tokens and one seed (mean bits per
byte over the four base domains): Muon 0.02 / AdamW 3e-3: 2.475; 0.04 / 3e-3: 2.489; 0.02 / 6e-3: 2.436; 0.02
/ 1.2e-2: 2.422. The last was rounded. `THIRTY_M` is untuned: it has the rates of the literature.

`THIRTY_M_TERNARY` was chosen by CPU time, on one thread of a Zen 4. In seconds per step: Newton–Schulz takes
3.2 in fp32 and 1.5 in bf16, rounding 0.7 by median and 0.2 by mean, 4,096 tokens with AdamW 2.3 in bf16. In
90 s of CPU each, ternary and in bf16, Muon (0.02 / 1e-2) came in 14 steps of 8,192 tokens to where AdamW
(2e-3) came in 37 of 4,096: 2.867 bits per byte, which is hardly more than the frequencies of words. Muon it
is, since it got there in fewer steps, and in steps of half that size, since a short run has few. Its rates
are those of `TOY`, unswept.

`TOY_TERNARY` was swept on validation at 131,072 tokens and one seed: Muon 0.01: 2.769; 0.02: 2.734; 0.04:
2.769. With the median 2.754, with one scale per matrix 2.768.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from sharedllm.errors import BadRecipe

__all__ = ["SPECIALIST", "THIRTY_M", "THIRTY_M_TERNARY", "TOY", "TOY_TERNARY", "Recipe"]

_CHOICES = {
    "optimizer": ("muon", "adamw"),
    "weights": ("full", "ternary"),
    "scale": ("mean", "median"),
    "per": ("row", "matrix"),
    "precision": ("fp32", "bf16"),
}


@dataclass(frozen=True)
class Recipe:
    """One training run: optimiser, schedule, batch and budget; equal recipe, seed, text and machine give
    equal bits.

    ``lr`` is Muon's for hidden matrices, or AdamW's when it trains everything; ``adamw_lr`` is for what Muon
    leaves (embeddings, norms, router). ``batch`` rows of ``window`` tokens make a step; ``tokens`` is the
    budget. ``warmup`` and ``decay`` are shares of it; ``clip`` bounds the gradient's norm; ``balance`` weighs
    the load-balance loss. ``weights`` says whether hidden matrices are ternary in the forward pass (see
    ``training.ternary``); their scale is the mean or median magnitude per row or matrix. ``precision`` is
    that of a CPU's products; a GPU's are bf16. Raises ``BadRecipe`` for values that can't run.
    """

    name: str
    optimizer: Literal["muon", "adamw"]
    lr: float
    adamw_lr: float
    weight_decay: float
    warmup: float
    decay: float
    clip: float
    balance: float
    batch: int
    window: int
    tokens: int
    checkpoint_steps: int
    weights: Literal["full", "ternary"] = "full"
    scale: Literal["mean", "median"] = "mean"
    per: Literal["row", "matrix"] = "row"
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                raise BadRecipe(f"A recipe's {field} is {' or '.join(known)}, not {getattr(self, field)!r}.")
        if min(self.batch, self.window, self.checkpoint_steps) < 1 or self.tokens < self.tokens_per_step:
            raise BadRecipe(
                f"Recipe {self.name!r} has {self.tokens} tokens for steps of {self.batch} × {self.window}; "
                "give it at least one step."
            )
        if min(self.lr, self.adamw_lr, self.clip) <= 0 or min(self.weight_decay, self.balance) < 0:
            raise BadRecipe(
                f"The recipe {self.name!r} has a learning rate, clip or weight that is not positive."
            )
        if min(self.warmup, self.decay) < 0 or self.warmup + self.decay > 1:
            raise BadRecipe(
                f"The recipe {self.name!r} warms up for {self.warmup} and decays for {self.decay} of its run."
            )

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.window

    @property
    def steps(self) -> int:
        return self.tokens // self.tokens_per_step

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, without those that a full-precision fp32 run does not need.

        Runs from before those fields existed keep the hashes of their recipes.
        """
        spare = set() if self.weights == "ternary" else {"weights", "scale", "per"}
        spare |= {"precision"} if self.precision == "fp32" else set()
        return {field: value for field, value in dataclasses.asdict(self).items() if field not in spare}


TOY = Recipe(
    name="toy",
    optimizer="muon",
    lr=0.02,
    adamw_lr=1e-2,
    weight_decay=0.0,
    warmup=0.02,
    decay=0.6,
    clip=1.0,
    balance=0.01,
    batch=8,
    window=256,
    tokens=1_310_720,
    checkpoint_steps=80,
)

# The seed's FractalMoE. The budget is what `--hours` or `--tokens` says; 600 M tokens are 20 per parameter.
THIRTY_M = Recipe(
    name="30m",
    optimizer="muon",
    lr=0.02,
    adamw_lr=3e-3,
    weight_decay=0.01,
    warmup=0.02,
    decay=0.4,
    clip=1.0,
    balance=0.01,
    batch=64,
    window=512,
    tokens=600_000_000,
    checkpoint_steps=100,
)

# The run of a CPU: ternary from the first step, products in bf16, a batch for budgets of an hour or two
THIRTY_M_TERNARY = dataclasses.replace(
    THIRTY_M,
    name="30m-ternary",
    weights="ternary",
    precision="bf16",
    adamw_lr=1e-2,
    decay=0.6,
    batch=8,
    checkpoint_steps=10,
)
TOY_TERNARY = dataclasses.replace(TOY, name="toy-ternary", weights="ternary")

# From the toy base on one domain; under a minute on two cores
SPECIALIST = dataclasses.replace(TOY, name="specialist", lr=0.01, adamw_lr=3e-3, tokens=262_144, decay=0.8)
