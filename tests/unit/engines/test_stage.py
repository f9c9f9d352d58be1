"""A stage computes what the model computes, and refuses steps that do not fit."""

from __future__ import annotations

import pytest
import torch

from sharedllm.engines import BadStep, Stage
from sharedllm.model import Transformer
from sharedllm.wire import BadFrame, Codec, Op, Segment, StepMeta, Want, encode
from tests.unit.engines.toys import Chain, stage, toy

Served = tuple[Transformer, Stage]
TOKENS = torch.randint(0, 90, (3, 40), generator=torch.Generator().manual_seed(3))


def expected(model: Transformer, row: int, length: int) -> torch.Tensor:
    with torch.inference_mode():
        return model.hidden(TOKENS[row : row + 1, :length])[0]


def test_a_chunk_is_what_the_model_computes(served: Served) -> None:
    model, whole = served
    rows = Chain([whole]).step(model.embed(TOKENS[0]), Segment(Op.CHUNK, 1, 0, 40, Want.ALL))
    torch.testing.assert_close(rows, expected(model, 0, 40), atol=1e-4, rtol=1e-4)


def test_sequences_side_by_side_are_what_the_model_computes_of_each(served: Served) -> None:
    model, whole = served
    chain = Chain([whole])
    first = torch.cat([model.embed(TOKENS[0, :20]), model.embed(TOKENS[1, :7])])
    chain.step(first, Segment(Op.CHUNK, 1, 0, 20), Segment(Op.CHUNK, 2, 0, 7))
    second = torch.cat([model.embed(TOKENS[row, at]) for row, at in parts(20, 7, 0)])
    rows = chain.step(
        second,
        Segment(Op.CHUNK, 1, 20, 20, Want.ALL),
        Segment(Op.ROWS, 2, 7, 30, Want.ALL),
        Segment(Op.ROWS, 3, 0, 1, Want.ALL),
    )
    whole_rows = [expected(model, 0, 40)[20:], expected(model, 1, 37)[7:], expected(model, 2, 1)]
    torch.testing.assert_close(rows, torch.cat(whole_rows), atol=1e-4, rtol=1e-4)


def parts(first: int, second: int, third: int) -> list[tuple[int, slice]]:
    return [(0, slice(first, 40)), (1, slice(second, 37)), (2, slice(third, 1))]


def test_each_layer_of_a_traced_row_comes_back_in_order_from_all_stages() -> None:
    model = toy("dense")
    chain = Chain([stage(model, 0, 1), stage(model, 1, 3), stage(model, 3, 4)])
    rows, traces = chain.traced(
        model.embed(TOKENS[:2, :5]).flatten(0, 1),
        Segment(Op.CHUNK, 1, 0, 5, Want.LAST),
        Segment(Op.CHUNK, 2, 0, 5, Want.TRACE),
    )
    assert rows.shape == (2, 48)
    h_BTD = model.embed(TOKENS[1:2, :5])
    for layer in range(4):
        h_BTD = model.span(layer, layer + 1)(h_BTD)
        torch.testing.assert_close(traces[layer], h_BTD[0, -1], atol=1e-4, rtol=1e-4)
    assert torch.equal(traces[-1], rows[1])


def test_only_the_wanted_rows_come_back(served: Served) -> None:
    model, whole = served
    h_RD = model.embed(TOKENS[0, :12])
    wants = [Segment(Op.CHUNK, n, 0, 4, want) for n, want in enumerate((Want.NONE, Want.LAST, Want.ALL))]
    everything = Chain([whole]).step(h_RD, *[Segment(Op.CHUNK, n, 0, 4, Want.ALL) for n in range(3)])
    rows = Chain([whole]).step(h_RD, *wants)
    assert torch.equal(rows, everything[[7, 8, 9, 10, 11]])


def test_a_step_may_manage_memory_alone(served: Served) -> None:
    model, whole = served
    chain = Chain([whole])
    chain.step(model.embed(TOKENS[0, :9]), Segment(Op.CHUNK, 1, 0, 9))
    rows = chain.step(
        torch.empty(0, model.config.width), Segment(Op.FORK, 2, 9, source=1), Segment(Op.FREE, 1)
    )
    assert rows.shape == (0, model.config.width)
    assert chain.works[0].slots.used == 64


def test_operations_of_one_step_act_in_their_order() -> None:
    model = toy("dense")
    chain = Chain([stage(model, 0, 4)])
    h_RD = model.embed(TOKENS[0, :9])
    chain.step(h_RD, Segment(Op.CHUNK, 1, 0, 9))
    again = chain.step(
        h_RD[6:],
        Segment(Op.ROLLBACK, 1, 3),
        Segment(Op.FORK, 2, 6, source=1),
        Segment(Op.FREE, 1),
        Segment(Op.ROWS, 2, 6, 3, Want.ALL),
    )
    torch.testing.assert_close(again, expected(model, 0, 9)[6:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("segments", "sentence"),
    [
        ([Segment(Op.ROWS, 1, 0, 3)], "4 rows came for segments of"),
        ([Segment(Op.ROWS, 1, 0, 5)], "4 rows came for segments of"),
        ([], "4 rows came for segments of"),
        ([Segment(Op.ROWS, 1, 0, 4), Segment(Op.CHUNK, 2, 0, 0)], r"segments of \[4, 0\] rows"),
        ([Segment(Op.ROWS, 1, 0, 2), Segment(Op.ROWS, 1, 2, 2)], "two runs of rows for the same slot"),
        ([Segment(Op.ROWS, 1, 1, 4)], "begin at position 1, but it holds 0"),
        (
            [Segment(Op.CHUNK, 1, 0, 4), Segment(Op.FORK, 2, 4, source=1)],
            "rows that the same step computes",
        ),
    ],
)
def test_segments_that_do_not_fit_the_rows_are_refused(segments: list[Segment], sentence: str) -> None:
    model = toy("dense")
    chain = Chain([stage(model, 0, 1)])
    with pytest.raises(BadStep, match=sentence):
        chain.step(model.embed(TOKENS[0, :4]), *segments)


def test_rows_of_another_width_are_refused() -> None:
    chain = Chain([stage(toy("dense"), 0, 1)])
    with pytest.raises(BadStep, match="Rows of 50 numbers came; the model is 48 wide"):
        chain.step(torch.zeros(1, 50), Segment(Op.ROWS, 1, 0, 1))


def test_a_body_of_another_length_is_refused() -> None:
    (work,) = Chain([stage(toy("dense"), 0, 1)]).works
    meta = StepMeta((Segment(Op.ROWS, 1, 0, 2),), Codec.FP32, 48, 2)
    with pytest.raises(BadFrame, match="take 384 bytes; 192 came"):
        work.step(meta, encode(torch.zeros(1, 48), Codec.FP32), 0.0, 0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_numbers_are_refused_before_anything_is_cached(value: float) -> None:
    chain = Chain([stage(toy("dense"), 0, 1)])
    h_RD = torch.zeros(3, 48)
    h_RD[1, 5] = value
    with pytest.raises(ArithmeticError, match="not numbers came in"):
        chain.step(h_RD, Segment(Op.ROWS, 1, 0, 3))
    assert chain.works[0].slots.used == 0


def test_every_stage_adds_what_it_spent() -> None:
    model = toy("dense")
    meta = StepMeta((Segment(Op.ROWS, 1, 0, 1),), Codec.FP32, 48, 1)
    body: bytes | memoryview = encode(model.embed(TOKENS[0, :1]), Codec.FP32)
    for work in Chain([stage(model, 0, 1), stage(model, 1, 4)]).works:
        meta, body = work.step(meta, body, 0.25, 3)
    assert [(hop.start, hop.stop, hop.wait_us, hop.queued) for hop in meta.hops] == [
        (0, 1, 250_000, 3),
        (1, 4, 250_000, 3),
    ]
    assert all(hop.compute_us > 0 for hop in meta.hops)


def test_a_stage_says_what_it_weighs() -> None:
    model = toy("dense")
    weights = sum(weight.numel() * 4 for weight in model.span(1, 3).parameters())
    part = stage(model, 1, 3)
    assert (part.weights_bytes, part.kv_bytes_per_token) == (weights, 2 * 2 * 2 * 8 * 4)
