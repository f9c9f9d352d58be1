"""Both ends of a model, apart from its layers, compute what the whole model computes."""

from __future__ import annotations

import pytest
import torch

from sharedllm.engines import Ends, Stage
from sharedllm.model import Transformer
from sharedllm.wire import Op, Segment, Want
from tests.unit.engines.toys import Chain

Served = tuple[Transformer, Stage]
TOKENS = list(range(3, 40, 4))


def ends(model: Transformer) -> Ends:
    return Ends(model.config, model.state_dict())


def test_ends_and_stages_together_are_the_model(served: Served) -> None:
    model, whole = served
    h_RD = Chain([whole]).step(ends(model).embed(TOKENS), Segment(Op.CHUNK, 1, 0, len(TOKENS), Want.ALL))
    with torch.inference_mode():
        expected = model(torch.tensor([TOKENS]))[0]
    torch.testing.assert_close(ends(model).logits(h_RD), expected, atol=1e-3, rtol=1e-4)


def test_the_logits_of_a_row_are_the_same_bits_in_any_company(served: Served) -> None:
    model, _ = served
    h_RD = torch.randn(9, model.config.width, generator=torch.Generator().manual_seed(1))
    together = ends(model).logits(h_RD)
    for at in range(9):
        assert torch.equal(ends(model).logits(h_RD[at : at + 1]), together[at : at + 1])


def test_contributions_sum_to_the_logit_above_the_mean(served: Served) -> None:
    model, whole = served
    chain, both = Chain([whole]), ends(model)
    embedded = both.embed(TOKENS)
    rows, traces = chain.traced(embedded, Segment(Op.CHUNK, 1, 0, len(TOKENS), Want.TRACE))
    logits = both.logits(rows)[0]
    parts = both.contributions(torch.cat((embedded[-1:], traces)), 17)
    assert len(parts) == model.config.layers + 1
    assert sum(parts) == pytest.approx(float(logits[17] - logits.mean()), abs=1e-3)
