"""What a person with a few machines gets: fit first, split last, and a reason for each machine left out."""

from __future__ import annotations

import dataclasses

import pytest

from sharedllm.nodes.planner import Links, ModelShape, NodeOffer, NoHome, Objective, Plan, cuts, plan, spares

GB = 10**9
SHAPE = ModelShape("ab" * 32, 30, GB // 10, GB // 100, 576, 1152)  # 30 layers of 0.11 GB
LINKS = Links(default_rtt_s=0.002, software_s=0.0)


def offer(name, memory_gb=4.0, ms=1.0, **more):
    return NodeOffer(name, int(memory_gb * GB), ms / 1000, name=name, **more)


def planned(offers, shape=SHAPE, objective=None, links=LINKS):
    made = plan(offers, shape, objective or Objective(), links)
    assert isinstance(made, Plan)
    return made


def spans(made):
    return [(span.node, span.start, span.stop) for span in made.spans]


def why(made, node):
    return dict(made.left_out)[node]


def test_a_model_that_fits_one_machine_is_not_split():
    assert spans(planned([offer("attic"), offer("kettle")])) == [("attic", 0, 30)]


def test_equal_machines_are_told_apart_by_id():
    assert spans(planned([offer("kettle"), offer("attic")])) == [("attic", 0, 30)]


def test_of_two_machines_that_hold_the_model_the_faster_is_taken():
    assert spans(planned([offer("attic", ms=2), offer("kettle", ms=1)])) == [("kettle", 0, 30)]


def test_a_model_that_fits_no_machine_is_split_where_the_memory_ends():
    made = planned([offer("attic", 2.2), offer("kettle", 2.2, ms=2)])
    assert sorted((node, stop - start) for node, start, stop in spans(made)) == [
        ("attic", 20),
        ("kettle", 10),
    ]


def test_two_fast_small_machines_beat_a_slow_large_one_when_the_hop_is_worth_it():
    small = [offer("attic", 2.2, ms=0.5), offer("kettle", 2.2, ms=0.5)]
    assert len(planned([offer("barn", 40, ms=2), *small]).spans) == 2


def test_a_far_machine_is_not_worth_its_hop():
    far = offer("kettle", 2.2, ms=0.5, rtt_s={"primary": 0.2, "barn": 0.2})
    assert spans(planned([offer("barn", 40, ms=2), far])) == [("barn", 0, 30)]


def test_a_machine_that_would_slow_the_token_is_left_out_with_both_numbers():
    made = planned([offer("attic", ms=1.4), offer("kettle", ms=2.0)])
    assert made.token_s == pytest.approx(0.044, abs=1e-4)
    assert why(made, "kettle") == "left out: with kettle the token would take 46 ms instead of 44 ms"


def test_numbers_that_look_alike_get_the_decimals_that_tell_them_apart():
    made = planned([offer("attic", ms=1), offer("kettle", ms=1.001)])
    assert why(made, "kettle") == "left out: with kettle the token would take 32.05 ms instead of 32.02 ms"


def test_a_machine_that_would_change_nothing_is_said_to():
    made = planned([offer("attic"), offer("kettle")])
    assert why(made, "kettle") == "left out: with kettle the token would take 32.02 ms, as it does without"


def test_a_machine_without_a_name_is_called_by_the_beginning_of_its_id():
    nameless = dataclasses.replace(offer("f" * 32, ms=3), name="")
    assert "with ffffffff the token" in why(planned([offer("attic"), nameless]), "f" * 32)


def test_a_full_machine_is_told_what_one_layer_needs():
    made = planned([offer("attic"), offer("kettle", 0.05)])
    assert why(made, "kettle") == "left out: it has 50 MB free, and one layer with its cache needs 110 MB"


def test_a_banned_machine_is_left_out_as_banned():
    made = planned([offer("attic"), offer("kettle", ms=2)], objective=Objective(banned=frozenset({"attic"})))
    assert (spans(made), why(made, "attic")) == (
        [("kettle", 0, 30)],
        "left out: it is banned from this pipeline for now",
    )


def test_a_pinned_pipeline_leaves_out_who_is_not_trusted():
    made = planned([offer("attic", trusted=False), offer("kettle", ms=2)])
    assert spans(made) == [("kettle", 0, 30)]
    assert "pinned to trusted nodes" in why(made, "attic")


def test_the_ring_is_walked_in_the_order_that_makes_its_hops_shortest():
    near, far = {"primary": 0.002, "kettle": 0.1, "barn": 0.002}, {"primary": 0.002, "barn": 0.002}
    trio = [
        offer("attic", 1.1, rtt_s=near),
        offer("barn", 1.1, rtt_s={"primary": 0.1}),
        offer("kettle", 1.1, rtt_s=far),
    ]
    assert [node for node, _, _ in spans(planned(trio))] in (
        ["attic", "barn", "kettle"],
        ["kettle", "barn", "attic"],
    )


def test_the_ring_costs_one_hop_more_than_it_has_workers():
    made = planned(
        [offer("attic", 2.2), offer("kettle", 2.2)], links=Links(default_rtt_s=0.02, software_s=0.001)
    )
    wire = SHAPE.activation_bytes / 125e6
    assert made.token_s == pytest.approx(0.030 + 3 * (0.010 + wire + 0.001))
    assert made.floor_s == pytest.approx(0.030 + 3 * (0.010 + wire))


def test_two_workers_of_one_machine_hop_without_the_network():
    made = planned([offer("attic", 2.2, host="box"), offer("kettle", 2.2, host="box")])
    assert made.spans[1].hop_s == pytest.approx(LINKS.same_host_rtt_s / 2)


def test_of_two_measurements_of_one_link_the_larger_counts():
    pair = [offer("attic", 2.2, rtt_s={"kettle": 0.01}), offer("kettle", 2.2, rtt_s={"attic": 0.03})]
    assert planned(pair).spans[1].hop_s == pytest.approx(0.015 + SHAPE.activation_bytes / 125e6)


def test_the_slower_end_of_a_link_sets_its_rate():
    pair = [offer("attic", 2.2), offer("kettle", 2.2, bandwidth_bytes_per_s=1e6)]
    assert planned(pair).spans[1].hop_s == pytest.approx(0.001 + SHAPE.activation_bytes / 1e6)


def test_a_spare_is_the_plan_without_its_node():
    trio = [offer("attic", 2.2), offer("barn", 2.2, ms=3), offer("kettle", 2.2)]
    made = planned(trio)
    ready = spares(trio, SHAPE, Objective(), made, LINKS)
    assert {node: {span.node for span in spare.spans} for node, spare in ready.items()} == {
        "attic": {"barn", "kettle"},
        "kettle": {"attic", "barn"},
    }


def test_a_spare_that_cannot_be_says_what_is_missing():
    pair = [offer("attic", 2.2), offer("kettle", 2.2)]
    spare = spares(pair, SHAPE, Objective(), planned(pair), LINKS)["attic"]
    assert isinstance(spare, NoHome)
    assert "not counted: 1 banned" in spare.sentence


def test_cuts_pass_over_a_node_that_would_slow_the_token():
    assert cuts([offer("attic"), offer("kettle", ms=9), offer("shed")], SHAPE, LINKS) == (30, 0, 0)


def test_cuts_of_nodes_that_hold_too_little_say_so():
    assert isinstance(cuts([offer("attic", 1)], SHAPE), NoHome)


def test_cuts_of_nothing_say_so():
    assert isinstance(cuts([], SHAPE), NoHome)


def test_a_thousand_nodes_with_one_layer_each_are_planned():
    crowd = [offer(f"n{number:04d}", 0.12, ms=1 + number % 7) for number in range(1000)]
    made = planned(crowd)
    assert len(made.spans) == 30
    assert {offer_.s_per_layer for offer_ in crowd if offer_.id in {s.node for s in made.spans}} == {0.001}


def test_a_node_that_leads_in_nothing_is_found_all_the_same():
    apart = {f"n{number:02d}": 0.2 for number in range(60)}  # cheap and near, but far from each other
    crowd = [offer(f"n{number:02d}", 0.34, ms=0.1, rtt_s=apart) for number in range(60)]
    crowd += [offer(f"m{number:02d}", 40, ms=50) for number in range(60)]
    crowd += [offer(f"p{number:02d}", 0.5, ms=50, rtt_s={"primary": 0.0}) for number in range(60)]
    assert "second" in {span.node for span in planned([*crowd, offer("second", 3.4, ms=1.0)]).spans}
