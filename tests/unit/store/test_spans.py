"""A node opens what it serves, a span or both ends, and nothing that does not fit its manifest."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from sharedllm import store
from sharedllm.errors import BadModelFile
from sharedllm.model import Tokenizer, Transformer
from sharedllm.store.blobs import Blobs
from sharedllm.store.manifest import Manifest
from tests.unit.store.conftest import CONFIG

HALF, FULL = torch.bfloat16, torch.float32


def saved(model: Transformer, tokenizer: Tokenizer, dtype: torch.dtype = FULL) -> Manifest:
    return store.save("made-up", model, tokenizer, licence="CC0-1.0", provenance={"seed": 0}, dtype=dtype)


def claiming(manifest: Manifest, **changes: Any) -> Manifest:
    """The manifest of the same file, but with another configuration."""
    return dataclasses.replace(manifest, config=dataclasses.replace(manifest.config, **changes))


@pytest.fixture
def manifest(model: Transformer, tokenizer: Tokenizer) -> Manifest:
    return saved(model, tokenizer)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 2), (0, 2)])
def test_a_span_is_those_layers_of_the_model(
    manifest: Manifest, model: Transformer, start: int, stop: int
) -> None:
    span = store.opened_span(manifest, start, stop)
    h_BTD = torch.randn(1, 5, CONFIG.width)
    assert (span.start, span.stop, span.training) == (start, stop, False)
    assert span.state_dict().keys() == model.span(start, stop).state_dict().keys()
    assert torch.equal(span(h_BTD), model.span(start, stop)(h_BTD))


def test_both_ends_are_those_of_the_model(manifest: Manifest, model: Transformer) -> None:
    ends = store.opened_ends(manifest)
    assert ends.keys() == {"embed.weight", "norm.weight"}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in ends.items())


def test_a_head_of_its_own_is_among_the_ends(tokenizer: Tokenizer) -> None:
    model = Transformer(dataclasses.replace(CONFIG, tied_head=False))
    ends = store.opened_ends(saved(model, tokenizer))
    assert torch.equal(ends["head.weight"], model.state_dict()["head.weight"])


def test_weights_at_rest_in_half_precision_are_opened_in_full(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    manifest = saved(model, tokenizer, HALF)
    opened = store.opened_span(manifest, 0, 1).state_dict() | store.opened_ends(manifest)
    assert {tensor.dtype for tensor in opened.values()} == {FULL}
    assert torch.equal(opened["embed.weight"], model.state_dict()["embed.weight"].to(HALF).float())


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (1, 0), (0, 3), (-1, 1), (2, 3)])
def test_layers_that_the_model_does_not_have_are_no_span(manifest: Manifest, start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="is no span of a model with 2 layers"):
        store.opened_span(manifest, start, stop)


def test_a_span_whose_tensors_are_missing_is_refused(manifest: Manifest) -> None:
    store.opened_span(claiming(manifest, layers=3), 0, 2)
    with pytest.raises(BadModelFile, match=r"made-up holds no blocks\.2\.attention_norm\.weight"):
        store.opened_span(claiming(manifest, layers=3), 1, 3)


@pytest.mark.parametrize(
    ("changes", "tensor"),
    [({"hidden": 95}, "feedforward.gate"), ({"width": 32}, "attention_norm"), ({"heads": 2}, "attention.q")],
)
def test_a_span_whose_tensors_have_other_shapes_is_refused(
    manifest: Manifest, changes: dict[str, Any], tensor: str
) -> None:
    with pytest.raises(BadModelFile, match=rf"Tensor blocks\.0\.{tensor}\.weight .* configuration says"):
        store.opened_span(claiming(manifest, **changes), 0, 1)


def test_ends_whose_head_is_missing_are_refused(manifest: Manifest) -> None:
    with pytest.raises(BadModelFile, match=r"made-up holds no head\.weight"):
        store.opened_ends(claiming(manifest, tied_head=False))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vocab_size": 299}, r"embed\.weight .* \(300, 64\), but its configuration says \(299, 64\)"),
        ({"width": 32}, r"embed\.weight .* \(300, 64\), but its configuration says \(300, 32\)"),
    ],
)
def test_ends_of_another_shape_are_refused(
    manifest: Manifest, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadModelFile, match=sentence):
        store.opened_ends(claiming(manifest, **changes))


@pytest.mark.parametrize("harm", ["missing", "cut"])
def test_weights_that_are_not_whole_are_opened_by_nobody(manifest: Manifest, harm: str) -> None:
    path = Blobs().path(manifest.weights_sha256)
    path.chmod(0o600)
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    for act in (lambda: store.opened_span(manifest, 0, 1), lambda: store.opened_ends(manifest)):
        with pytest.raises(BadModelFile, match="can't be loaded"):
            act()
