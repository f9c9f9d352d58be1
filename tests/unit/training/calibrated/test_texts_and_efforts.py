"""Control texts hold what they say, and a model gets the effort that suits its size."""

from __future__ import annotations

import importlib

import torch

from sharedllm.cli import exporting
from sharedllm.model import Config, Transformer
from sharedllm.training.calibrated import Texts, random_texts, shuffled_texts
from sharedllm.training.calibrated.recipes import LARGE, SMALL, effort_for
from tests.unit.training.calibrated.tiny import DENSE

_LARGE = Config(
    vocab_size=49_152, width=576, layers=30, heads=9, kv_heads=3, head_width=64, hidden=1536, context=2048
)


def test_shuffled_text_has_the_same_tokens_in_another_order(texts: Texts) -> None:
    shuffled = shuffled_texts(texts, 0)
    for name, tokens in texts.train.tokens.items():
        assert torch.equal(shuffled.train.tokens[name].sort().values, tokens.sort().values)
        assert not torch.equal(shuffled.train.tokens[name], tokens)


def test_random_text_is_as_long_as_the_real_one(texts: Texts) -> None:
    lengths = [
        {n: len(t) for n, t in each.train.tokens.items()} for each in (texts, random_texts(texts, 64, 0))
    ]
    assert lengths[0] == lengths[1]


def test_the_same_seed_draws_the_same_controls(texts: Texts) -> None:
    assert random_texts(texts, 64, 3).sha256 == random_texts(texts, 64, 3).sha256
    assert shuffled_texts(texts, 3).sha256 == shuffled_texts(texts, 3).sha256


def test_other_texts_have_another_hash(texts: Texts) -> None:
    assert len({texts.sha256, shuffled_texts(texts, 0).sha256, random_texts(texts, 64, 0).sha256}) == 3


def test_a_large_model_gets_the_large_effort() -> None:
    with torch.device("meta"):
        large, small = Transformer(_LARGE), Transformer(DENSE)
    assert (effort_for(large), effort_for(small)) == (LARGE, SMALL)


def test_every_scheme_of_export_is_a_function_somewhere() -> None:
    found = {name: getattr(importlib.import_module(home), name) for name, home in exporting.SCHEMES.items()}
    assert {"rounded", "calibrated", "planes"} <= set(found)
    assert all(map(callable, found.values()))
