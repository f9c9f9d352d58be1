"""Toy specialists: two norm adapters and a whole model, made from the toy by chance and published."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor

from sharedllm import store
from sharedllm.adapters import Adapter, write
from sharedllm.combiner import FixedShare, mixture
from sharedllm.model import Transformer
from sharedllm.nodes.primary.federated.mixed import ALPHA, CARRIED
from sharedllm.store import specialists

ADAPTED = {"toy-one": 1, "toy-two": 2}
WHOLE = "toy-whole"
NAMES = (*ADAPTED, WHOLE)
_STRENGTH = 0.15


def delta(model: Transformer, seed: int) -> dict[str, Tensor]:
    """What an adapter of that seed adds to the gains."""
    chance = torch.Generator().manual_seed(seed)
    gains = model.gains().items()
    return {name: _STRENGTH * torch.randn(gain.shape, generator=chance) for name, gain in gains}


def publish(folder: Path) -> None:
    """Keep all of them in the store, signed."""
    base, private = store.load("toy"), Ed25519PrivateKey.generate()
    for name, seed in ADAPTED.items():
        path = folder / f"{name}.safetensors"
        write(path, Adapter("norm", base.manifest.weights_sha256, delta(base.model, seed)))
        provenance = {"made": "by chance"}
        body = specialists.with_adapter(name, base.manifest, "norm", path, provenance=provenance)
        specialists.publish(name, specialists.sign(body, private))
    whole = whole_model(base.model)
    licence, provenance = base.manifest.licence, {"made": "by chance"}
    body = store.save(WHOLE, whole, base.tokenizer, licence=licence, provenance=provenance)
    specialists.publish(WHOLE, specialists.sign(body, private))


def whole_model(base: Transformer) -> Transformer:
    """The toy with every matrix a little changed."""
    chance, made = torch.Generator().manual_seed(3), copy.deepcopy(base)
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.05 * weight.std() * torch.randn(weight.shape, generator=chance)
    return made


def models() -> list[Transformer]:
    """All three, in this process."""
    base = store.load("toy").model.requires_grad_(False)
    adapted = []
    for seed in ADAPTED.values():
        made = copy.deepcopy(base)
        for name, change in delta(base, seed).items():
            made.gains()[name].data += change
        adapted.append(made)
    return [*adapted, whole_model(base)]


def mixed(members: Iterable[Transformer], prompt: list[int], length: int) -> tuple[list[int], Tensor]:
    """What the mixture says greedily in one piece, and its responsibilities ``r_TN``."""
    members = list(members)
    weights, tokens, shares = FixedShare(len(members), ALPHA).start(), list(prompt), []
    first = max(0, len(prompt) - 1 - CARRIED)
    with torch.inference_mode():
        for step in range(length):
            logp_NTV = torch.stack([m(torch.tensor([tokens]))[0].double().log_softmax(-1) for m in members])
            if step == 0:
                following = torch.tensor(prompt[first + 1 :])[None, :, None].expand(len(members), -1, 1)
                weights.carry(logp_NTV[:, first:-1].gather(2, following)[..., 0])
            token = int(mixture(logp_NTV[:, -1], weights.logw_N).argmax())
            a_N = logp_NTV[:, -1, token]
            shares.append((weights.logw_N + a_N).softmax(0))
            weights.observe(a_N)
            tokens.append(token)
    return tokens[len(prompt) :], torch.stack(shares)
