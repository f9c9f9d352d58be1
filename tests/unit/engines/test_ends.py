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


def test_a_row_may_wear_a_gain_of_its_own_behind_the_last_layer(served: Served) -> None:
    model, _ = served
    h_RD = torch.randn(5, model.config.width, generator=torch.Generator().manual_seed(1))
    worn_D = torch.linspace(-1, 3, model.config.width)
    both, other = ends(model), Ends(model.config, {**model.state_dict(), "norm.weight": worn_D})
    gains_RD = torch.stack([both.gain_D, worn_D, both.gain_D, worn_D, worn_D])
    logits_RV = both.logits(h_RD, gains_RD)
    assert torch.equal(logits_RV[[0, 2]], both.logits(h_RD)[[0, 2]])
    assert torch.equal(logits_RV[[1, 3, 4]], other.logits(h_RD)[[1, 3, 4]])


def test_contributions_count_with_the_gain_that_was_worn(served: Served) -> None:
    model, _ = served
    worn_D, states_SD = torch.linspace(-1, 3, model.config.width), torch.randn(3, model.config.width)
    other = Ends(model.config, {**model.state_dict(), "norm.weight": worn_D})
    assert ends(model).contributions(states_SD, 5, worn_D) == other.contributions(states_SD, 5)
