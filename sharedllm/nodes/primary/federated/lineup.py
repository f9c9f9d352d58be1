"""Which specialists are to be served beside a base: found by name, and known to fit together before anything
starts.

*Covered*: a name that is not here, one given twice, another tokenizer or vocabulary than the base's, an
adapter of a kind that is not served, weights or an adapter whose bytes are missing. *Not covered*: whether a
specialist is any good.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sharedllm import store
from sharedllm.errors import BadAdapter, BadMixture, UnknownName
from sharedllm.nodes.primary.federated.repertoire import MIXTURE
from sharedllm.store import specialists
from sharedllm.store.specialists import Signed

__all__ = ["Lineup", "lineup"]

_MOST = 16  # each costs a row of every step, and a head


@dataclasses.dataclass(frozen=True)
class Lineup:
    """The base, and the specialists by name; None stands for the base itself, as one of them."""

    base: store.Manifest
    specialists: dict[str, Signed | None]


def lineup(model: str, names: Sequence[str]) -> Lineup:
    """Find a base and its specialists.

    Raises ``UnknownName``, ``BadManifest``, ``BadMixture`` and ``BadAdapter``, and what ``store.resolve``
    raises for the base.
    """
    repeated = {name for name in names if names.count(name) > 1}
    if repeated or MIXTURE in names or len(names) > _MOST:
        raise BadMixture(
            f"The specialists are {', '.join(names)}; expected at most {_MOST}, each once, and none called "
            f"{MIXTURE}, which is the name of all together."
        )
    base = store.resolve(model)
    found: dict[str, Signed | None] = {}
    for name in names:
        found[name] = None if name == model else _found(name, base, model)
    return Lineup(base, found)


def _found(name: str, base: store.Manifest, model: str) -> Signed:
    signed = specialists.find(name)
    body = signed.body
    if body.adapter is not None and body.adapter.method != "norm":
        raise BadAdapter(
            f"The specialist {name} is a {body.adapter.method} adapter; a primary serves norm adapters and "
            "full models. Train one with `sharedllm specialist train`."
        )
    theirs, ours = body.tokenizer_sha256, base.tokenizer_sha256
    if theirs != ours or body.config.vocab_size != base.config.vocab_size:
        raise BadMixture(
            f"{name} has the tokenizer {theirs[:12]}… and {body.config.vocab_size:,} tokens, {model} has "
            f"{ours[:12]}… and {base.config.vocab_size:,}: their probabilities are of different things. "
            "Give the base that it was made from with --model, or leave it out."
        )
    blobs = store.Blobs()
    here = body.weights_sha256 == base.weights_sha256 or store.with_weights(body.weights_sha256) is not None
    if not here or (body.adapter is not None and not blobs.has(body.adapter.sha256)):
        raise UnknownName(
            f"The manifest of {name} is here, but not its weights; fetch them with "
            f"`sharedllm specialist fetch {name}`."
        )
    return signed
