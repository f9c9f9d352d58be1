"""A model's shape is strict: twelve fields, each of its type, none that contradicts another."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from sharedllm.errors import BadModelFile
from sharedllm.model import THIRTY_M_CONFIG, TOY_CONFIG, Config, Transformer


@pytest.mark.parametrize("config", [THIRTY_M_CONFIG, TOY_CONFIG])
def test_a_config_survives_json(config: Config) -> None:
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"widht": 3}, "widht"),
        ({"width": "256"}, "width"),
        ({"width": 0}, "width"),
        ({"layers": True}, "layers"),
        ({"kv_heads": 3}, "share"),
        ({"head_width": 15}, "even"),
        ({"rope_base": float("nan")}, "rope_base"),
        ({"tied_head": 1}, "tied_head"),
    ],
)
def test_a_wrong_config_is_refused_with_the_reason(change: dict[str, object], word: str) -> None:
    with pytest.raises(BadModelFile, match=word):
        Config.from_dict(THIRTY_M_CONFIG.to_dict() | change)


def test_a_config_that_lacks_a_field_is_refused_by_name() -> None:
    fields = THIRTY_M_CONFIG.to_dict()
    del fields["norm_eps"]
    with pytest.raises(BadModelFile, match="norm_eps"):
        Config.from_dict(fields)


def test_the_30m_model_has_nine_norms_with_2304_gains() -> None:
    with torch.device("meta"):
        gains = Transformer(THIRTY_M_CONFIG).gains()
    assert (len(gains), sum(gain.numel() for gain in gains.values())) == (9, 2304)


def test_smollm2s_shape_has_61_norms_with_8784_times_4_bytes_of_gains() -> None:
    config = dataclasses.replace(
        TOY_CONFIG, width=576, layers=30, heads=9, kv_heads=3, head_width=64, experts=0
    )
    with torch.device("meta"):
        gains = Transformer(config).gains()
    assert (len(gains), 4 * sum(gain.numel() for gain in gains.values())) == (61, 140_544)


@pytest.mark.parametrize(("config", "parameters"), [(THIRTY_M_CONFIG, 37_767_424), (TOY_CONFIG, 3_155_072)])
def test_a_fractal_moe_has_as_many_parameters_as_stated(config: Config, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in Transformer(config).parameters()) == parameters


def test_gains_come_in_the_order_in_which_a_token_meets_them() -> None:
    with torch.device("meta"):
        names = list(Transformer(dataclasses.replace(TOY_CONFIG, layers=2)).gains())
    assert names == [
        "blocks.0.attention_norm.weight",
        "blocks.0.feedforward_norm.weight",
        "blocks.1.attention_norm.weight",
        "blocks.1.feedforward_norm.weight",
        "norm.weight",
    ]
