"""Specialists of the tiny model, and what a mixture of them says when it is computed in one piece."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from sharedllm.combiner import FixedShare, mixture
from sharedllm.model import Transformer
from sharedllm.nodes.primary.federated.mixed import ALPHA, CARRIED
from sharedllm.nodes.primary.federated.repertoire import Part, Repertoire
from sharedllm.nodes.primary.federated.wardrobe import Worn
from tests.unit.nodes.primary.talking import Told
from tests.unit.nodes.primary.threads import HASH, Place

NAMES = ("code", "verse", "scripture")
OTHER = "cd" * 32


def delta(model: Transformer, seed: int) -> dict[str, Tensor]:
    """A norm adapter that changes what the model says."""
    chance = torch.Generator().manual_seed(seed)
    return {name: 0.6 * torch.randn(gain.shape, generator=chance) for name, gain in model.gains().items()}


def adapted(model: Transformer, seed: int) -> Transformer:
    """The model with that adapter in its weights."""
    made = copy.deepcopy(model)
    for name, change in delta(model, seed).items():
        made.gains()[name].data += change
    return made


def specialists(place: Place, names: Sequence[str] = NAMES) -> list[Part]:
    """One adapter on the place's model for each name."""
    ends = place.loop.model.ends
    worn = [Worn.over(ends, delta(place.whole, seed), name) for seed, name in enumerate(names, 1)]
    return [Part(name, w.key, place.loop, w) for name, w in zip(names, worn, strict=True)]


def serve(place: Place, names: Sequence[str] = NAMES) -> Repertoire:
    """Let the place's primary serve a mixture of specialists in one ring."""
    base = Part("tiny", HASH, place.loop)
    place.primary.repertoire = Repertoire(base, specialists(place, names))
    return place.primary.repertoire


@dataclasses.dataclass(frozen=True)
class Expected:
    """What the mixture says greedily, and the responsibilities for each token."""

    tokens: list[int]
    shares: list[list[float]]


def expected(models: Sequence[Transformer], prompt: Sequence[int], length: int) -> Expected:
    """Mix whole models in this process: the weights follow the prompt, and then the answer."""
    weights, tokens = FixedShare(len(models), ALPHA).start(), list(prompt)
    found = Expected([], [])
    first = max(0, len(prompt) - 1 - CARRIED)
    with torch.inference_mode():
        for _ in range(length):
            logits = [model(torch.tensor([tokens]))[0].double().log_softmax(-1) for model in models]
            logp_NTV = torch.stack(logits)
            if not found.tokens:
                following = torch.tensor(tokens[first + 1 :])
                carried = logp_NTV[:, first:-1].gather(2, following[None, :, None].expand(len(models), -1, 1))
                weights.carry(carried[..., 0])
            m_V = mixture(logp_NTV[:, -1], weights.logw_N)
            token = int(m_V.argmax())
            a_N = logp_NTV[:, -1, token]
            found.tokens.append(token)
            found.shares.append((weights.logw_N + a_N).softmax(0).tolist())
            weights.observe(a_N)
            tokens.append(token)
    return found


def serve_two_bases(place: Place, tiny: Transformer) -> list[Transformer]:
    """Let the primary mix two adapters of one base with another whole model; gives all three as models."""
    other = adapted(tiny, 9)
    place.models[OTHER] = other
    parts = [*specialists(place, NAMES[:2]), Part("whole", OTHER, place.loop_of("whole", OTHER))]
    place.primary.repertoire = Repertoire(Part("tiny", HASH, place.loop), parts)
    return [adapted(tiny, 1), adapted(tiny, 2), other]


def heard(told: Told) -> list[tuple[int, float, tuple[float, ...]]]:
    """Everything that was said, to the last bit."""
    assert told.error is None
    return [(said.token, said.logprob, said.responsibilities) for said in told.said]
