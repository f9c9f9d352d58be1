"""A router on texts whose contexts tell who is right, tell nothing, or are not what it expects."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sharedllm.combiner import Combiner, Router, Static, mixture, token_slack
from sharedllm.errors import BadMixture

torch.set_num_threads(1)


def telling(tokens: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Evidence of three specialists, of whom a context's first feature says which one knows the token."""
    generator = torch.Generator().manual_seed(seed)
    right_T = torch.randint(3, (tokens,), generator=generator)
    a_NT = torch.full((3, tokens), -4.0, dtype=torch.float64)
    a_NT[right_T, torch.arange(tokens)] = -1.0
    noise_TF = torch.randn(tokens, 4, generator=generator, dtype=torch.float64)
    return a_NT, torch.cat([5e3 + 100 * torch.eye(3, dtype=torch.float64)[right_T], noise_TF], 1)


def loss_nats(router: Router, a_NT: Tensor, context_TF: Tensor) -> float:
    return -float(mixture(a_NT, router.run(a_NT, context_TF)).mean())


def test_a_router_finds_who_knows_the_token_where_the_context_tells():
    router = Router.fit(*telling())
    assert loss_nats(router, *telling(seed=1)) < 1.05
    a_NT, _ = telling(seed=1)
    assert -float(mixture(a_NT, Static.fit(a_NT).logw_N).mean()) > 1.9


def test_a_router_loses_no_more_than_static_weights_on_the_text_it_was_chosen_on():
    a_NT, context_TF = telling()
    for lr in (1e-2, 30.0):
        router = Router.fit(a_NT, context_TF, steps=20, lr=lr)
        static_nats = -float(mixture(a_NT, Static.fit(a_NT).logw_N).mean())
        assert loss_nats(router, a_NT, context_TF) <= static_nats - router.gain_nats + 1e-9
        assert router.gain_nats >= 0


def test_a_router_that_only_memorised_is_not_chosen():
    a_NT, context_TF = telling(40)
    generator = torch.Generator().manual_seed(3)
    noise_TF = torch.randn(context_TF.shape, generator=generator, dtype=torch.float64)
    other_TF = torch.randn(context_TF.shape, generator=generator, dtype=torch.float64)
    chosen = Router.fit(a_NT, noise_TF, chosen_on=(a_NT, other_TF), steps=100)
    memorised = Router.fit(a_NT, noise_TF, steps=100)
    assert loss_nats(chosen, a_NT, other_TF) <= loss_nats(memorised, a_NT, other_TF)


def test_fitting_twice_gives_the_same_bits():
    first, second = Router.fit(*telling(), steps=30), Router.fit(*telling(), steps=30)
    assert torch.equal(first.gate_NF, second.gate_NF)


def test_observing_token_by_token_gives_the_bits_of_a_run():
    a_NT, context_TF = telling(20)
    router = Router.fit(a_NT, context_TF, steps=10)
    logw_NT, state = router.run(a_NT, context_TF), router.start()
    for t in range(20):
        assert torch.equal(state.look(context_TF[t]), logw_NT[:, t])
        state.observe(a_NT[:, t])


def test_every_inequality_of_a_mixture_holds_for_a_routers_weights():
    a_NT, context_TF = telling()
    slack = token_slack(a_NT, Router.fit(a_NT, context_TF, steps=50).run(a_NT, context_TF)).minimum()
    assert min(slack.values()) >= -1e-12


def test_impossible_tokens_and_constant_features_spoil_nothing():
    a_NT, context_TF = telling(50)
    a_NT[:, 3], a_NT[0, 4], a_NT[1] = -math.inf, -math.inf, a_NT[1] - 1e4
    context_TF[:, 0] = 7.0
    router = Router.fit(a_NT, context_TF, steps=20)
    assert router.look(context_TF[0]).isfinite().all()
    assert Combiner(router).joint(torch.zeros(3, 5) - math.log(5)).logsumexp(0).abs() < 1e-6


def test_a_router_without_contexts_is_refused():
    a_NT, context_TF = telling(10)
    router = Router.fit(a_NT, context_TF, steps=1)
    with pytest.raises(BadMixture, match="before each of 10 tokens, got 0"):
        router.run(a_NT)
    with pytest.raises(BadMixture, match="got 9"):
        router.run(a_NT, context_TF[:9])


def test_a_context_of_another_width_or_with_nan_is_refused():
    a_NT, context_TF = telling(10)
    router = Router.fit(a_NT, context_TF, steps=1)
    with pytest.raises(BadMixture, match="7 finite features"):
        router.look(context_TF[0, :3])
    with pytest.raises(BadMixture, match="not finite"):
        router.look(context_TF[0] * math.nan)


def test_weights_of_a_router_that_are_not_finite_are_refused():
    with pytest.raises(BadMixture, match="finite"):
        Router(torch.full((2, 3), math.nan), torch.zeros(2), torch.zeros(3), torch.ones(3))


def test_a_router_that_would_divide_by_zero_is_refused():
    with pytest.raises(BadMixture, match="scales above zero"):
        Router(torch.zeros(2, 3), torch.zeros(2), torch.zeros(3), torch.zeros(3))


def test_a_router_of_shapes_that_do_not_fit_is_refused():
    with pytest.raises(BadMixture, match="2 biases"):
        Router(torch.zeros(2, 3), torch.zeros(3), torch.zeros(3), torch.ones(3))


def test_a_text_without_evidence_cannot_fit_a_router():
    with pytest.raises(BadMixture, match="can't be fitted"):
        Router.fit(torch.full((2, 3), -math.inf), torch.zeros(3, 2))


def test_contexts_of_another_length_cannot_fit_a_router():
    with pytest.raises(BadMixture, match="contexts of 3 tokens"):
        Router.fit(torch.zeros(2, 3), torch.zeros(4, 2))
