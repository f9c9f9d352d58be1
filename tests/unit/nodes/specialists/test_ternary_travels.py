"""A ternary model goes through the library as the small file that it is, and a span of it opens elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import store
from sharedllm.model import Tokenizer, Transformer
from sharedllm.nodes import specialists as library
from sharedllm.nodes.coordinator import CoordinatorClient
from sharedllm.store import specialists, ternary
from sharedllm.store.specialists import Signed
from tests.unit.nodes.specialists.conftest import CONFIG


@pytest.fixture
def small(
    move: Callable[[str], None], private: Ed25519PrivateKey, tokenizer: Tokenizer, tmp_path: Path
) -> Signed:
    """Of another name in each test: the library remembers who took one first."""
    name = f"tiny-{tmp_path.name}".replace("_", "-")[:60]
    torch.manual_seed(5)
    weights = ternary.rounded(Transformer(CONFIG).state_dict())
    body = store.keep_ternary(name, CONFIG, tokenizer, weights, licence="MIT", provenance={})
    made = specialists.sign(body, private)
    specialists.publish(name, made)
    return made


def test_a_worker_that_never_saw_the_model_opens_its_span(
    client: CoordinatorClient, small: Signed, move: Callable[[str], None]
) -> None:
    here = store.opened_span(small.body, 1, 2).state_dict()
    library.offer(client, small)
    move("second")
    manifest = library.fetch_model(client, small.body.weights_sha256)
    there = store.opened_span(manifest, 1, 2).state_dict()
    assert all(torch.equal(there[name], weight) for name, weight in here.items())


def test_what_travels_is_a_fraction_of_the_weights(
    client: CoordinatorClient, small: Signed, move: Callable[[str], None]
) -> None:
    library.offer(client, small)
    in_full = 4 * sum(weight.numel() for weight in store.opened_span(small.body, 0, 2).parameters())
    move("second")
    manifest = library.fetch_model(client, small.body.weights_sha256)
    assert store.Blobs().path(manifest.weights_sha256).stat().st_size < in_full / 3
