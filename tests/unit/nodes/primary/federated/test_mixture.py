"""A mixture of specialists through a ring says what the same mixture says in one piece, whatever happens."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sharedllm.model import Transformer
from sharedllm.wire import Codec
from tests.unit.nodes.primary.federated.choirs import NAMES, adapted, expected, serve
from tests.unit.nodes.primary.talking import Told, one, prompt
from tests.unit.nodes.primary.threads import Place

ASKED = prompt(100)


@pytest.fixture
def choir(ring: Place) -> Place:
    """Three specialists on one base in one ring."""
    serve(ring)
    return ring


def heard(told: Told) -> list[tuple[int, float, tuple[float, ...]]]:
    assert told.error is None
    return [(said.token, said.logprob, said.responsibilities) for said in told.said]


@pytest.mark.parametrize("length", [1, 2, 64, 65, 150, 600])
def test_the_ring_says_what_the_mixture_says_in_one_piece(
    choir: Place, tiny: Transformer, length: int
) -> None:
    asked = prompt(length, seed=length)
    models = [adapted(tiny, seed) for seed in range(1, len(NAMES) + 1)]
    choir.loop.model = dataclasses.replace(choir.loop.model, wire=Codec.FP32)
    choir.loop.start()
    told, whole = one(choir, asked), expected(models, asked, 16)
    assert told.tokens == whole.tokens
    shares = torch.tensor([said.responsibilities for said in told.said])
    torch.testing.assert_close(shares, torch.tensor(whole.shares), atol=1e-4, rtol=0)
