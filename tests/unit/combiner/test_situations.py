"""The three situations that break careless mixtures: clones, a text of nobody's, a text that switches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sharedllm.combiner import (
    Bayes,
    FixedShare,
    Pruned,
    Router,
    Static,
    Uniform,
    Weights,
    best_switching,
    fixed_share_price,
    fixed_share_slack,
    mixture,
    sequence_slack,
    token_slack,
)

torch.set_num_threads(1)

ALPHA = 0.02
CLONES = 9


def text(tokens: int, best: int, seed: int = 0) -> Tensor:
    """Evidence of three specialists, of whom one knows the text by one nat per token."""
    generator = torch.Generator().manual_seed(seed)
    a_NT = -3 + 0.5 * torch.randn(3, tokens, generator=generator, dtype=torch.float64)
    a_NT[best] += 1
    return a_NT


def cloned(a_NT: Tensor) -> Tensor:
    """The same with copies of the last, who is none of the best."""
    return torch.cat([a_NT, a_NT[-1].expand(CLONES, -1)])


def loss_nats(weights: Weights, a_NT: Tensor) -> float:
    return -float(mixture(a_NT, weights.run(a_NT)).sum())


def clan(logw_NT: Tensor) -> Tensor:
    """What the last specialist and its copies weigh together, per token."""
    return logw_NT[2:].logsumexp(0).exp()


def test_a_clan_of_copies_weighs_as_much_as_its_prior_and_its_evidence_say():
    a_NT = text(50, best=0)
    honest_N = torch.tensor([1.0, 1.0, 1.0 + CLONES], dtype=torch.float64).log().log_softmax(0)
    alone_NT = Bayes(3, honest_N).run(a_NT)
    torch.testing.assert_close(clan(Bayes(3 + CLONES).run(cloned(a_NT))), alone_NT[2].exp())


def test_copies_that_share_one_specialists_prior_change_no_token_under_bayes():
    a_NT = text(50, best=0)
    shared_N = torch.full((1 + CLONES,), -math.log(3 * (1 + CLONES)), dtype=torch.float64)
    prior_N = torch.cat([torch.full((2,), -math.log(3), dtype=torch.float64), shared_N])
    with_NT = cloned(a_NT)
    served_T = mixture(with_NT, Bayes(3 + CLONES, prior_N).run(with_NT))
    torch.testing.assert_close(served_T, mixture(a_NT, Bayes(3).run(a_NT)))


def test_copies_keep_their_part_of_uniform_weights_for_ever():
    logw_NT = Uniform(3 + CLONES).run(cloned(text(200, best=0)))
    assert torch.allclose(clan(logw_NT), torch.tensor((1 + CLONES) / (3 + CLONES), dtype=torch.float64))


def test_copies_cost_uniform_weights_on_every_token_and_learning_weights_once():
    a_NT = text(400, best=0)
    costs = {
        name: loss_nats(kind(3 + CLONES), cloned(a_NT)) - loss_nats(kind(3), a_NT)
        for name, kind in (("uniform", Uniform), ("bayes", Bayes), ("share", lambda n: FixedShare(n, ALPHA)))
    }
    bound_nats = math.log((3 + CLONES) / 3)
    assert costs["bayes"] <= bound_nats + 1e-9
    assert costs["share"] <= 2 * bound_nats
    assert costs["uniform"] > 80 * bound_nats


def test_copies_bring_a_fitted_mixture_no_other_weight_than_the_one_they_share():
    a_NT = text(100, best=0)
    fitted_N = Static.fit(a_NT).logw_N
    with_N = Static.fit(cloned(a_NT)).logw_N
    assert float(with_N[2:].logsumexp(0).exp()) == pytest.approx(float(fitted_N[2].exp()), abs=0.01)


def every_kind() -> list[Weights]:
    router = Router(torch.ones(3, 1), torch.tensor([2.0, 0.0, -2.0]), torch.zeros(1), torch.ones(1))
    share = FixedShare(3, ALPHA)
    return [Uniform(3), Static(torch.tensor([0.7, 0.2, 0.1]).log()), Bayes(3), share, Pruned(share), router]


@pytest.mark.parametrize("weights", every_kind(), ids=lambda weights: type(weights).__name__)
def test_a_text_that_nobody_knows_keeps_every_inequality(weights):
    """Out of domain each specialist is surprised by turns, most of all of a token that none expects."""
    a_NT = text(200, best=0) - 9 * torch.rand(3, 200, generator=torch.Generator().manual_seed(1))
    a_NT[:, 7] = -1e4
    a_NT[:, 9] = -math.inf
    logw_NT = weights.run(a_NT, torch.ones(200, 1))
    assert min(token_slack(a_NT, logw_NT).minimum().values()) >= -1e-11


def test_on_a_text_that_nobody_knows_learning_weights_lose_no_more_than_they_promise():
    a_NT = text(300, best=0) - 9 * torch.rand(3, 300, generator=torch.Generator().manual_seed(2))
    bayes = sequence_slack(a_NT, Bayes(3).run(a_NT))
    assert bayes.within_best_nats >= 0
    assert bayes.total_nats <= min(bayes.specialists_nats) + math.log(3)
    assert (fixed_share_slack(a_NT, FixedShare(3, ALPHA).run(a_NT), ALPHA, most=40) >= 0).all()


def test_documents_that_switch_are_followed_by_fixed_share_within_its_price_and_not_by_bayes():
    documents = [0, 1, 2, 0, 1]
    a_NT = torch.cat([text(150, best, seed) for seed, best in enumerate(documents)], 1)
    switches, tokens = len(documents) - 1, a_NT.shape[1]
    best_nats = float(best_switching(a_NT, switches)[-1])
    followed = loss_nats(FixedShare(3, ALPHA), a_NT)
    assert followed <= best_nats + fixed_share_price(3, tokens, ALPHA, switches)
    assert loss_nats(Bayes(3), a_NT) > followed + 200


def test_a_request_that_goes_on_after_its_prompt_follows_a_switch_too():
    prompt_NT, answer_NT = text(100, best=0), text(60, best=1, seed=1)
    state = FixedShare(3, ALPHA).start()
    state.carry(prompt_NT)
    assert float(state.logw_N[0].exp()) > 0.9
    for a_N in answer_NT.unbind(1):
        state.observe(a_N)
    assert float(state.logw_N[1].exp()) > 0.9


def test_one_specialist_alone_weighs_everything_whatever_it_says():
    a_NT = torch.tensor([[-1.0, -math.inf, -1e4, 0.0]], dtype=torch.float64)
    for weights in (
        Uniform(1),
        Bayes(1),
        FixedShare(1, 0.5),
        Pruned(FixedShare(1, 0.5)),
        Pruned(Bayes(1), 1.0),
    ):
        assert weights.run(a_NT).tolist() == [[0.0] * 4]
