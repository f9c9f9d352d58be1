"""A ternary model in an engine: near what its restored weights compute, packed, and steady in its bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sharedllm import store
from sharedllm.engines import Ends, Stage, layer_bytes
from sharedllm.engines.ternary import CompiledProjection, RestoredProjection, kernel, span
from sharedllm.errors import BadModelFile
from sharedllm.model import Transformer, train_tokenizer
from sharedllm.store import Manifest, ternary
from sharedllm.wire import Op, Segment, Want
from tests.unit.engines.toys import CONFIGS as TOYS
from tests.unit.engines.toys import Chain

Keep = Callable[..., Manifest]
TOKENS = torch.randint(0, 260, (40,), generator=torch.Generator().manual_seed(3))
CONFIGS = {**TOYS, "wide": dataclasses.replace(TOYS["dense"], width=64)}
TOKENIZER = train_tokenizer(["the cat sat on the mat"] * 4, 260)


@pytest.fixture
def keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keep:
    """Round a toy's weights, and keep them in a store of its own."""
    kernel()
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))

    def kept(kind: str, table: ternary.Table = "int8", **how: Any) -> Manifest:
        config = dataclasses.replace(CONFIGS[kind], vocab_size=260)
        torch.manual_seed(0)
        weights = ternary.rounded(Transformer(config).state_dict(), **how)
        return store.keep_ternary(
            "small", config, TOKENIZER, weights, table=table, licence="CC0-1.0", provenance={}
        )

    return kept


def restored(manifest: Manifest) -> Stage:
    return Stage(store.opened_span(manifest, 0, manifest.config.layers))


@pytest.mark.parametrize("how", [{}, {"planes": 2, "group": 8}], ids=str)
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_it_computes_what_restored_weights_do(keep: Keep, kind: str, how: dict[str, int]) -> None:
    manifest = keep(kind, **how)
    ends, all_of_them = Ends.opened(manifest), Segment(Op.CHUNK, 1, 0, 40, Want.ALL)
    h_RD = ends.embed(TOKENS.tolist())
    packed = Chain([Stage.opened(manifest, 0, 4)]).step(h_RD, all_of_them)
    plain = Chain([restored(manifest)]).step(h_RD, all_of_them)
    assert float((packed - plain).norm() / plain.norm()) < 1e-3


@pytest.mark.parametrize("kind", ["dense", "moe", "odd"])
def test_where_it_is_cut_changes_no_bit(keep: Keep, kind: str) -> None:
    manifest = keep(kind)
    h_RD, chunk = Ends.opened(manifest).embed(TOKENS.tolist()), Segment(Op.CHUNK, 1, 0, 40, Want.ALL)
    whole = Chain([Stage.opened(manifest, 0, 4)]).step(h_RD, chunk)
    parts = [Stage.opened(manifest, *part) for part in ((0, 1), (1, 3), (3, 4))]
    assert torch.equal(Chain(parts).step(h_RD, chunk), whole)


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_a_row_has_the_same_bits_alone_and_beside_others(keep: Keep, kind: str) -> None:
    manifest = keep(kind)
    stage, h_RD = Stage.opened(manifest, 0, 4), Ends.opened(manifest).embed(TOKENS.tolist())
    together = Chain([stage]).step(h_RD[:5], *(Segment(Op.ROWS, row, 0, 1, Want.LAST) for row in range(5)))
    alone = [Chain([stage]).step(row[None], Segment(Op.ROWS, 1, 0, 1, Want.LAST)) for row in h_RD[:5]]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_without_a_compiler_it_computes_the_same_bits(
    keep: Keep, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = keep(kind)
    h_RD, chunk = Ends.opened(manifest).embed(TOKENS.tolist()), Segment(Op.CHUNK, 1, 0, 40, Want.ALL)
    packed = Chain([Stage.opened(manifest, 0, 4)]).step(h_RD, chunk)
    monkeypatch.setattr(span, "projection", RestoredProjection)
    assert torch.equal(Chain([Stage.opened(manifest, 0, 4)]).step(h_RD, chunk), packed)


def test_its_weights_stay_packed(keep: Keep) -> None:
    manifest = keep("moe")
    assert Stage.opened(manifest, 0, 4).weights_bytes < restored(manifest).weights_bytes / 6


def test_memory_is_counted_without_a_compiler_too(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = keep("dense")
    monkeypatch.setattr(span, "projection", RestoredProjection)
    assert Stage.opened(manifest, 0, 4).weights_bytes > restored(manifest).weights_bytes


@pytest.mark.parametrize("kind", ["dense", "odd"])
def test_an_int8_head_is_read_as_it_is(keep: Keep, kind: str) -> None:
    manifest = keep(kind)
    ends, plain = Ends.opened(manifest), Ends(manifest.config, store.opened_ends(manifest))
    assert isinstance(ends._head, CompiledProjection)
    h_RD = torch.randn(5, manifest.config.width, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ends.logits(h_RD), plain.logits(h_RD), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("table", ["fp16", "int4"])
def test_a_head_of_another_form_is_restored(keep: Keep, table: ternary.Table) -> None:
    manifest = keep("wide", table)
    ends, plain = Ends.opened(manifest), Ends(manifest.config, store.opened_ends(manifest))
    h_RD = torch.randn(5, manifest.config.width, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ends.logits(h_RD), plain.logits(h_RD))


def test_a_layer_is_counted_as_it_is_held(keep: Keep) -> None:
    manifest = keep("dense")
    assert 4 * layer_bytes(manifest) == Stage.opened(manifest, 0, 4).weights_bytes


def test_another_kind_of_model_is_no_ternary_one() -> None:
    manifest = store.resolve("toy")
    with pytest.raises(BadModelFile, match="toy is no ternary model; its weights are float"):
        store.opened_ternary(manifest, {})
