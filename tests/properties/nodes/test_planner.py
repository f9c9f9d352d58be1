"""What every plan keeps, whatever the nodes are like; and that what is called exact equals brute force."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sharedllm.nodes.planner import Links, ModelShape, NodeOffer, NoHome, Objective, Plan, cuts, plan, spares
from tests.benchmarks import brute_force

steady = settings(deadline=None, max_examples=50)  # no timing decides a test
LINKS = Links()
LAYER_BYTES, CACHE_BYTES = 90, 10

times_s = st.floats(1e-4, 0.1) | st.sampled_from([0.001, 0.002, 0.01])  # ties happen
SOME_MEMORY = st.integers(0, 900)
rtts_s = st.floats(0, 0.2) | st.sampled_from([0.0, 0.001, 0.02])


@st.composite
def offer_lists(draw, most=5, memory=SOME_MEMORY):
    ids = [f"node{number}" for number in range(draw(st.integers(1, most)))]
    return [
        NodeOffer(
            one,
            draw(memory),
            draw(times_s),
            host=draw(st.sampled_from(["", "attic", "cellar"])),
            rtt_s=draw(st.dictionaries(st.sampled_from([*ids, "primary"]), rtts_s)),
            bandwidth_bytes_per_s=draw(st.sampled_from([1e5, 1e6, 1e8])),
            trusted=draw(st.sampled_from([True, True, True, False])),
        )
        for one in ids
    ]


@st.composite
def shapes(draw, most=7):
    return ModelShape("ab" * 32, draw(st.integers(1, most)), LAYER_BYTES, CACHE_BYTES, 8, 4096)


objectives = st.one_of(
    st.just(Objective()),
    st.builds(Objective, st.just("spread"), st.none() | st.integers(1, 4)),
    st.builds(Objective, banned=st.frozensets(st.sampled_from(["node0", "node3"]))),
)


def allowed(offers, banned=frozenset()):
    return [offer for offer in offers if offer.trusted and offer.id not in banned]


@steady
@given(offer_lists(most=8), shapes(most=12), objectives)
def test_a_plan_covers_every_layer_once_and_fits_in_memory(offers, shape, objective):
    made = plan(offers, shape, objective)
    assume(isinstance(made, Plan))
    memory = {offer.id: offer.memory_bytes for offer in offers}
    done = 0
    for span in made.spans:
        assert span.start == done < span.stop
        assert (span.stop - span.start) * (LAYER_BYTES + CACHE_BYTES) <= memory[span.node]
        done = span.stop
    assert done == shape.layers
    assert len({span.node for span in made.spans}) == len(made.spans)


@steady
@given(offer_lists(most=8), shapes(most=12), objectives)
def test_every_node_is_used_or_left_out_with_a_sentence(offers, shape, objective):
    made = plan(offers, shape, objective)
    assume(isinstance(made, Plan))
    used = [span.node for span in made.spans]
    left = [node for node, _ in made.left_out]
    assert sorted(used + left) == sorted(offer.id for offer in offers)
    assert all(sentence.startswith("left out: ") for _, sentence in made.left_out)


@steady
@given(offer_lists(), shapes(), objectives)
def test_no_untrusted_or_banned_node_takes_part(offers, shape, objective):
    made = plan(offers, shape, objective)
    assume(isinstance(made, Plan))
    assert {span.node for span in made.spans} <= {offer.id for offer in allowed(offers, objective.banned)}


@steady
@given(offer_lists(), shapes(), objectives)
def test_the_prediction_is_the_sum_of_its_parts(offers, shape, objective):
    made = plan(offers, shape, objective)
    assume(isinstance(made, Plan))
    parts = sum(span.compute_s + span.hop_s for span in made.spans) + made.return_s
    assert made.token_s == pytest.approx(parts, rel=1e-12)
    assert made.floor_s == pytest.approx(parts - (len(made.spans) + 1) * LINKS.software_s, rel=1e-9)


@steady
@given(st.data(), offer_lists(most=8), shapes(most=12), objectives)
def test_the_order_of_the_offers_does_not_matter(data, offers, shape, objective):
    assert plan(data.draw(st.permutations(offers)), shape, objective) == plan(offers, shape, objective)


@steady
@given(offer_lists(), shapes())
def test_cuts_are_as_good_as_the_best_of_all_cuts_of_that_order(offers, shape):
    made = cuts(offers, shape)
    best = brute_force.least_token_s(brute_force.subsequences(offers), shape, LINKS)
    if isinstance(made, NoHome):
        assert best == math.inf
    else:
        used = tuple(offer for offer, layers in zip(offers, made, strict=True) if layers)
        compute = sum(offer.s_per_layer * layers for offer, layers in zip(offers, made, strict=True))
        assert compute + brute_force.ring_s(used, shape, LINKS) == pytest.approx(best, rel=1e-9)


@steady
@given(offer_lists(), shapes())
def test_up_to_ten_nodes_the_plan_is_the_optimum(offers, shape):
    made = plan(offers, shape)
    choices = brute_force.orders(allowed(offers), range(1, len(offers) + 1))
    best = brute_force.least_token_s(choices, shape, LINKS)
    assert (made.token_s if isinstance(made, Plan) else math.inf) == pytest.approx(best, rel=1e-9)


@steady
@given(offer_lists(), shapes(), st.integers(1, 4))
def test_spread_has_the_least_slowest_stage_and_then_the_least_time_per_token(offers, shape, nodes):
    made = plan(offers, shape, Objective("spread", nodes))
    usable = [offer for offer in allowed(offers) if offer.memory_bytes >= LAYER_BYTES + CACHE_BYTES]
    size = min(nodes, len(usable), shape.layers)
    choices = brute_force.orders(usable, [size] if size else [])
    best = brute_force.least_stage_then_token(choices, shape, LINKS)
    if isinstance(made, NoHome):
        assert best == (math.inf, math.inf)
    else:
        assert (len(made.spans), made.slowest_s, made.token_s) == (
            size,
            *(pytest.approx(b, rel=1e-9) for b in best),
        )


@steady
@given(offer_lists(most=8), shapes(most=12))
def test_one_more_node_never_makes_the_plan_slower(offers, shape):
    more, fewer = plan(offers, shape), plan(offers[:-1], shape)
    assume(isinstance(fewer, Plan))
    assert isinstance(more, Plan)
    assert more.token_s <= fewer.token_s * (1 + 1e-9)


@steady
@given(offer_lists(most=8), shapes(most=12))
def test_more_memory_never_makes_the_plan_slower(offers, shape):
    before = plan(offers, shape)
    assume(isinstance(before, Plan))
    first = dataclasses.replace(offers[0], memory_bytes=offers[0].memory_bytes + 300)
    after = plan([first, *offers[1:]], shape)
    assert isinstance(after, Plan)
    assert after.token_s <= before.token_s * (1 + 1e-9)


@steady
@given(offer_lists(), shapes(), objectives)
def test_a_spare_plan_does_without_its_node(offers, shape, objective):
    made = plan(offers, shape, objective)
    assume(isinstance(made, Plan))
    without = spares(offers, shape, objective, made)
    assert list(without) == [span.node for span in made.spans]
    for node, spare in without.items():
        if isinstance(spare, Plan):
            assert node not in {span.node for span in spare.spans}


@steady
@given(offer_lists(memory=st.integers(0, 300)), shapes(most=12))
def test_what_is_missing_is_enough(offers, shape):
    made = plan(offers, shape)
    assume(isinstance(made, NoHome))
    bought = NodeOffer("new", made.missing_bytes, 0.01)
    assert isinstance(plan([*offers, bought], shape), Plan)
    assert isinstance(
        plan([*offers, dataclasses.replace(bought, memory_bytes=made.missing_bytes - 1)], shape), NoHome
    )
    assert (made.start, made.stop) == (shape.layers - made.missing_bytes // 100, shape.layers)


@settings(deadline=None, max_examples=15)
@given(offer_lists(most=30, memory=st.integers(100, 300)), shapes(most=12))
def test_beyond_ten_nodes_no_single_change_would_help(offers, shape):
    made = plan(offers, shape)
    assume(isinstance(made, Plan))
    fits = [offer for offer in allowed(offers) if offer.memory_bytes >= shape.layers * 100]
    alone = brute_force.least_token_s(brute_force.orders(fits, [1]), shape, LINKS)
    assert made.token_s <= alone * (1 + 1e-9)
    used = [next(o for o in offers if o.id == span.node) for span in made.spans]
    for offer in allowed(offers):
        if offer not in used:
            for gap in range(len(used) + 1):
                order = [*used[:gap], offer, *used[gap:]]
                assert made.token_s <= token_of(order, shape) * (1 + 1e-8)


def token_of(order, shape):
    numbers = cuts(order, shape)
    used = tuple(offer for offer, layers in zip(order, numbers, strict=True) if layers)
    compute = sum(offer.s_per_layer * layers for offer, layers in zip(order, numbers, strict=True))
    return compute + brute_force.ring_s(used, shape, LINKS)
