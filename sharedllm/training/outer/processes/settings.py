"""What all workers of one joint training have in common; the meeting place tells it to newcomers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from sharedllm.errors import BadAggregate, BadRecipe
from sharedllm.model import Config
from sharedllm.robust import check_rule
from sharedllm.store import canonical_json, sha256_of
from sharedllm.training.outer.compression import Codec, Coding
from sharedllm.training.outer.outer import Outer
from sharedllm.training.recipe import Recipe

__all__ = ["Settings", "fewest"]

_MAX_BYTES = 65_536


@dataclass(frozen=True)
class Settings:
    """One joint training: what is trained, how often its workers meet, and what they do with what they hear.

    ``workers`` is how many start together and into how many shards the text is cut; ``liars`` the f that
    ``rule`` must survive. ``recipe`` is the inner one; its token budget is that of one worker, so that its
    schedule ends with the last round. ``patience_s`` is how long a worker is waited for.
    """

    base: str
    config: Config
    recipe: Recipe
    text_sha256: str
    seed: int
    workers: int
    rounds: int
    inner_steps: int
    shards: Literal["mixed", "domains"]
    codec: Codec
    rule: str
    liars: int
    outer_lr: float
    outer_momentum: float
    patience_s: float

    def __post_init__(self) -> None:
        if min(self.workers, self.rounds, self.inner_steps) < 1:
            raise BadRecipe(
                f"{self.workers} workers, {self.rounds} rounds and {self.inner_steps} inner steps were asked "
                "for; each must be at least 1."
            )
        if self.recipe.steps != self.rounds * self.inner_steps:
            raise BadRecipe(
                f"The recipe {self.recipe.name!r} has {self.recipe.steps} steps for {self.rounds} rounds of "
                f"{self.inner_steps}; make its budget that of one worker."
            )
        if self.shards not in ("mixed", "domains"):
            raise BadRecipe(f"The text is cut into mixed shards or by domains, not {self.shards!r}.")
        if not 0 < self.patience_s < float("inf"):
            raise BadRecipe(f"The patience is {self.patience_s} s; it must be more than 0.")
        Coding(self.codec)
        Outer(self.outer_lr, self.outer_momentum)
        check_rule(self.rule, self.workers, self.liars)

    def writes_after(self, round_: int) -> bool:
        """Whether the workers write their checkpoints when ``round_`` (from 0) is over."""
        before, after = round_ * self.inner_steps, (round_ + 1) * self.inner_steps
        return before // self.recipe.checkpoint_steps != after // self.recipe.checkpoint_steps

    def to_json(self) -> bytes:
        return canonical_json(dataclasses.asdict(self))

    @property
    def sha256(self) -> str:
        """Hash all that decides what is computed, so that no checkpoint is resumed in another training."""
        deciding = dataclasses.asdict(self)
        del deciding["patience_s"]
        return sha256_of(deciding)

    @classmethod
    def from_json(cls, data: bytes) -> Settings:
        """Read ``to_json``'s form. Raises ``BadRecipe`` for anything else."""
        if len(data) > _MAX_BYTES:
            raise BadRecipe(
                f"The settings of the training are {len(data)} bytes long; expected {_MAX_BYTES}."
            )
        try:
            fields: dict[str, Any] = json.loads(data)
            config, recipe = Config.from_dict(fields.pop("config")), Recipe(**fields.pop("recipe"))
            return cls(config=config, recipe=recipe, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadRecipe(
                f"The settings of the training can't be read ({error}); both sides need the same version."
            ) from error


def fewest(rule: str, liars: int) -> int:
    """Return how many workers ``rule`` needs against so many liars. Raises ``BadAggregate`` for no rule."""
    most = 4 * liars + 4  # two to a bucket, and every rule is content with that
    for workers in range(1, most):
        try:
            check_rule(rule, workers, liars)
        except BadAggregate:
            continue
        return workers
    check_rule(rule, most, liars)
    return most
