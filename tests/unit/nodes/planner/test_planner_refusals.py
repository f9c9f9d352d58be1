"""Figures that no plan can be made of are refused with a sentence; a model without a home gets one too."""

from __future__ import annotations

import math

import pytest

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.planner import BadFigures, Links, ModelShape, NodeOffer, NoHome, Objective, plan

OFFER = {"id": "attic", "memory_bytes": 1000, "s_per_layer": 0.001, "bandwidth_bytes_per_s": 1e6}
MODEL = {
    "hash": "ab" * 32,
    "layers": 30,
    "layer_bytes": 90,
    "cache_bytes_per_layer": 10,
    "width": 576,
    "activation_bytes": 1152,
}


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["s_per_layer", "bandwidth_bytes_per_s"])
def test_an_offer_with_an_impossible_figure_is_refused(name, value):
    with pytest.raises(BadFigures, match=f"Node attic has {name} = "):
        NodeOffer(**{**OFFER, name: value})


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_an_offer_of_impossible_memory_is_refused(value):
    with pytest.raises(BadFigures, match="Node attic has memory_bytes = "):
        NodeOffer(**{**OFFER, "memory_bytes": value})


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
def test_an_impossible_round_trip_is_refused_with_its_other_end(value):
    with pytest.raises(BadFigures, match="rtt_s to kettle"):
        NodeOffer(**OFFER, rtt_s={"kettle": value})


@pytest.mark.parametrize("name", ["", "primary"])
def test_a_node_needs_an_id_of_its_own(name):
    with pytest.raises(BadFigures, match="give its id"):
        NodeOffer(**{**OFFER, "id": name})


@pytest.mark.parametrize("value", [0, -1, math.nan])
@pytest.mark.parametrize("name", ["layers", "layer_bytes", "width", "activation_bytes"])
def test_a_model_with_an_impossible_figure_is_refused(name, value):
    with pytest.raises(BadFigures, match=f"Model abababab has {name} = "):
        ModelShape(**{**MODEL, name: value})


def test_a_negative_cache_is_refused():
    with pytest.raises(BadFigures, match="cache_bytes_per_layer"):
        ModelShape(**{**MODEL, "cache_bytes_per_layer": -1})


def test_a_model_of_too_many_layers_is_refused_before_memory_is_taken():
    with pytest.raises(BadFigures, match="at most 1024"):
        ModelShape(**{**MODEL, "layers": 10**9})


@pytest.mark.parametrize("nodes", [0, -3])
def test_a_pipeline_over_no_workers_is_refused(nodes):
    with pytest.raises(BadFigures, match="ask for 1 or more"):
        Objective("spread", nodes)


def test_fastest_with_a_number_of_nodes_is_refused():
    with pytest.raises(BadFigures, match="chooses how many itself"):
        Objective("fastest", 2)


def test_another_objective_is_refused():
    with pytest.raises(BadFigures, match='"fastest" or "spread"'):
        Objective("cheapest")


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_an_impossible_default_round_trip_is_refused(value):
    with pytest.raises(BadFigures, match="default_rtt_s"):
        Links(default_rtt_s=value)


def test_two_offers_of_one_node_are_refused():
    with pytest.raises(BadFigures, match="attic makes two offers"):
        plan([NodeOffer(**OFFER), NodeOffer(**OFFER)], ModelShape(**MODEL))


def test_a_refusal_is_an_error_that_the_command_line_prints():
    assert issubclass(BadFigures, SharedLLMError)


def test_without_nodes_every_layer_lacks_a_home():
    made = plan([], ModelShape(**MODEL))
    assert isinstance(made, NoHome)
    assert (made.start, made.stop, made.missing_bytes) == (0, 30, 3000)
    assert made.sentence == (
        "Layers 0–29 of 0–29 have no home: no node is at hand, and 3.00 kB of memory is missing. Join a "
        "machine with that much free, raise a node's share, or ask for a shorter context."
    )


def test_too_little_memory_says_which_layers_and_how_much_and_who_was_not_counted():
    offers = [
        NodeOffer("attic", 1000, 0.001),
        NodeOffer("barn", 99, 0.001),
        NodeOffer("kettle", 1000, 0.001, trusted=False),
        NodeOffer("shed", 1900, 0.001),
        NodeOffer("yard", 1900, 0.001),
    ]
    made = plan(offers, ModelShape(**MODEL), Objective(banned=frozenset({"yard"})))
    assert isinstance(made, NoHome)
    assert (made.start, made.stop, made.missing_bytes) == (29, 30, 100)
    assert made.sentence.startswith(
        "Layer 29 of 0–29 has no home: the 2 nodes at hand hold 29 (not counted: 1 banned, 1 not trusted, "
        "1 full), and 100 bytes of memory is missing."
    )
