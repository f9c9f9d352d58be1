"""Spread over a number of workers: even stages, so that several streams keep all of them busy."""

from __future__ import annotations

import pytest

from sharedllm.nodes.planner import ModelShape, NodeOffer, NoHome, Objective, Plan, plan

SHAPE = ModelShape("ab" * 32, 30, 90, 10, 576, 1152)


def offer(name, layers=30, ms=1.0, **more):
    return NodeOffer(name, layers * 100, ms / 1000, name=name, **more)


def spread(offers, nodes):
    made = plan(offers, SHAPE, Objective("spread", nodes))
    assert isinstance(made, Plan)
    return made


def layers(made):
    return {span.node: span.stop - span.start for span in made.spans}


def test_two_equal_workers_take_half_each():
    assert layers(spread([offer("attic"), offer("kettle")], 2)) == {"attic": 15, "kettle": 15}


def test_a_worker_that_is_twice_as_fast_takes_twice_as_many():
    assert layers(spread([offer("attic", ms=2), offer("kettle", ms=1)], 2)) == {"attic": 10, "kettle": 20}


def test_memory_bounds_what_is_even():
    assert layers(spread([offer("attic", 6), offer("kettle")], 2)) == {"attic": 6, "kettle": 24}


def test_without_a_number_all_workers_take_part():
    assert len(spread([offer("attic"), offer("kettle"), offer("shed", ms=9)], None).spans) == 3


def test_the_fastest_of_many_are_chosen():
    assert set(layers(spread([offer("attic", ms=3), offer("barn"), offer("kettle")], 2))) == {
        "barn",
        "kettle",
    }


def test_fewer_workers_than_asked_for_are_used_and_said():
    made = spread([offer("attic"), offer("kettle"), offer("full", 0)], 5)
    assert made.note == "5 workers were asked for; 2 used, because no more can take part"
    assert len(made.spans) == 2


def test_no_more_workers_than_layers_are_used_and_said():
    made = spread([offer(f"n{number:02d}") for number in range(40)], 35)
    assert made.note == "35 workers were asked for; 30 used, because the model has no more layers"
    assert set(layers(made).values()) == {1}


def test_a_plan_as_asked_for_has_no_note():
    assert spread([offer("attic"), offer("kettle")], 2).note == ""


def test_a_worker_left_out_is_told_what_the_slowest_stage_would_be():
    made = spread([offer("attic", ms=3), offer("barn"), offer("kettle")], 2)
    assert dict(made.left_out)["attic"] == (
        "left out: 2 workers were asked for, and with attic in place of one of them "
        "the slowest stage would take 23 ms instead of 15 ms"
    )


def test_a_worker_that_would_change_nothing_is_told_so():
    made = spread([offer("attic"), offer("barn"), offer("kettle")], 2)
    assert dict(made.left_out)["kettle"].endswith(
        "with kettle in place of one of them nothing would be faster"
    )


def test_a_worker_with_too_little_memory_for_so_few_is_told_so():
    made = spread([offer("attic", 3), offer("barn", 20), offer("kettle", 20)], 2)
    assert dict(made.left_out)["attic"].endswith("with attic in place of one of them the model would not fit")


def test_one_worker_takes_all_and_another_is_told_what_it_would_take():
    made = spread([offer("attic", ms=2), offer("kettle")], 1)
    assert layers(made) == {"kettle": 30}
    assert "1 worker was asked for" in dict(made.left_out)["attic"]
    assert "60 ms instead of 30 ms" in dict(made.left_out)["attic"]


def test_too_few_workers_asked_for_is_a_sentence_that_says_so():
    made = plan([offer(name, 10) for name in ("attic", "barn", "kettle")], SHAPE, Objective("spread", 2))
    assert isinstance(made, NoHome)
    assert (made.start, made.stop, made.missing_bytes) == (20, 30, 1000)
    assert made.sentence == (
        "Layers 20–29 of 0–29 have no home: 2 workers were asked for, the largest hold 20, and 1.00 kB of "
        "memory is missing. Ask for more workers, or let the planner choose how many."
    )


def test_among_equally_even_pipelines_the_nearer_one_is_taken():
    far = {"primary": 0.2}
    made = spread([offer("attic", rtt_s=far), offer("barn"), offer("kettle")], 2)
    assert set(layers(made)) == {"barn", "kettle"}


def test_many_workers_are_spread_over_many():
    crowd = [offer(f"n{number:03d}", 5, ms=1 + number % 5) for number in range(200)]
    made = spread(crowd, 15)
    assert made.slowest_s == pytest.approx(0.002)
    assert len(made.spans) == 15
