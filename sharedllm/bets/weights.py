"""Points in weight space: specialists as weights, lines between them, and twins that compute the same.

A model is a mapping from parameter names to fp32 tensors here, so that a notebook can add, scale and average
models; ``wearing`` runs the base with such weights and puts its own back, bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import safetensors.torch
import torch
from torch import Tensor

from sharedllm import adapters, corpus, training
from sharedllm.bets.specialists import TRAINED_WHOLE, adapted
from sharedllm.model import Config, Transformer, token_nats
from sharedllm.store import Loaded, sha256_of

__all__ = [
    "Weights",
    "alone",
    "blend",
    "divergence",
    "losses",
    "of_base",
    "of_specialist",
    "permuted",
    "wearing",
]

Weights = Mapping[str, Tensor]


def of_base(base: Loaded) -> Weights:
    """Give the base's own weights."""
    return {name: parameter.data for name, parameter in base.model.named_parameters()}


def of_specialist(base: Loaded, domain: str, *, tokens: int, lr: float, seed: int) -> Weights:
    """Make, or find again, the weights of ``bets.specialists``' specialist of this domain."""
    read = corpus.domain(domain)
    if base.manifest.name in TRAINED_WHOLE:
        recipe = replace(training.SPECIALIST, tokens=tokens)
        folder = training.specialist(base, read, recipe, seed=seed)
        return dict(training.load_specialist(folder, base).named_parameters())
    with adapters.applied(base.model, adapted(base, read, tokens, lr, seed)):
        return of_base(base)


def alone(base: Loaded, domain: str, *, tokens: int, seed: int) -> Weights:
    """Train a model of the base's shape and tokenizer on a domain from an initialisation of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = Transformer(base.model.config)
    drawn = sha256_of(safetensors.torch.save(fresh.state_dict()))
    own = Loaded(fresh, base.tokenizer, replace(base.manifest, weights_sha256=drawn))
    recipe = replace(training.TOY, name="alone", tokens=tokens)
    folder = training.specialist(own, corpus.domain(domain), recipe, seed=seed)
    return dict(training.load_specialist(folder, own).named_parameters())


def blend(*parts: tuple[float, Weights]) -> Weights:
    """Add models up, each times its coefficient, in fp64 and rounded once."""
    return {
        name: sum((c * weights[name].detach().double() for c, weights in parts), torch.tensor(0.0)).float()
        for name in parts[0][1]
    }


def permuted(weights: Weights, config: Config, seed: int) -> Weights:
    """Give the same function in other coordinates: width, hidden units and experts in another order.

    Exact in real arithmetic; floating point sums in another order. Entezari et al. 2110.06296 §2.
    """
    draw = torch.Generator().manual_seed(seed)
    width_D = torch.randperm(config.width, generator=draw)
    result = {name: weight.detach() for name, weight in weights.items()}
    for layer in range(config.layers):
        prefix = f"blocks.{layer}.feedforward."
        hidden_F = torch.randperm(config.hidden, generator=draw)
        if config.experts:
            expert_E = torch.randperm(config.experts, generator=draw)
            result[f"{prefix}router.weight"] = result[f"{prefix}router.weight"][expert_E]
            for name in ("gate_EFD", "up_EFD"):
                result[prefix + name] = result[prefix + name][expert_E][:, hidden_F]
            down = result[f"{prefix}down_EDF"][expert_E]
            result[f"{prefix}down_EDF"] = down[:, :, hidden_F]
        else:
            for name in ("gate.weight", "up.weight"):
                result[prefix + name] = result[prefix + name][hidden_F]
            result[f"{prefix}down.weight"] = result[f"{prefix}down.weight"][:, hidden_F]
    return {name: _turned(name, weight, width_D).contiguous() for name, weight in result.items()}


def _turned(name: str, weight: Tensor, width_D: Tensor) -> Tensor:
    """Reorder the residual stream's numbers wherever a weight reads or writes them."""
    if name.endswith("attention.o.weight") or name.endswith("feedforward.down.weight"):
        return weight[width_D]
    if name.endswith("down_EDF"):
        return weight[:, width_D]
    return weight[..., width_D]


@contextlib.contextmanager
def wearing(model: Transformer, weights: Weights) -> Iterator[Transformer]:
    """Run the body with the model wearing ``weights``; afterwards it has its own again, bit for bit."""
    own = {name: parameter.data for name, parameter in model.named_parameters()}
    try:
        for name, parameter in model.named_parameters():
            parameter.data = weights[name].detach()
        yield model
    finally:
        for name, parameter in model.named_parameters():
            parameter.data = own[name]


@torch.no_grad()
def losses(model: Transformer, weights: Weights, excerpts: Sequence[corpus.Excerpt]) -> list[float]:
    """Score every excerpt's tokens after the first with the model wearing ``weights``: nats of each token."""
    with wearing(model, weights):
        rows = (torch.tensor([excerpt.tokens]) for excerpt in excerpts)
        return [nats for row in rows for nats in token_nats(model, row)[0].tolist()]


@torch.no_grad()
def divergence(model: Transformer, a: Weights, b: Weights, excerpts: Sequence[corpus.Excerpt]) -> float:
    """Give the mean Jeffreys divergence of two models' next-token distributions over a text, in nats."""
    total, tokens = 0.0, 0
    for excerpt in excerpts:
        tokens_BT = torch.tensor([excerpt.tokens[:-1]])
        with wearing(model, a):
            p_TV = model(tokens_BT)[0].double().log_softmax(-1)
        with wearing(model, b):
            q_TV = model(tokens_BT)[0].double().log_softmax(-1)
        total += float(((p_TV.exp() - q_TV.exp()) * (p_TV - q_TV)).sum())
        tokens += len(p_TV)
    return total / tokens
