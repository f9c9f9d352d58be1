"""A rehearsal: requests over real connections, workers that fail when told to, and bits that are compared."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from sharedllm.model import Sampling
from sharedllm.nodes.errors import NoPipeline
from sharedllm.nodes.rehearsal import Heard, Plan, Recording, Rehearsal, refusal

PROMPT = tuple(range(100, 170))  # a whole chunk and a part
SHORT = Sampling(max_tokens=6)
HALVES: Plan = [("first", 0, 2), ("last", 2, 4)]
WHOLE: Plan = [("spare", 0, 4)]
Prepare = Callable[[Rehearsal], object]


def answered(
    prepare: Prepare = lambda ring: None, plans: tuple[Plan, ...] = (HALVES, WHOLE), wire: str = "fp16"
) -> tuple[Heard, Recording]:
    with Rehearsal("toy", plans, wire=wire) as ring:
        prepare(ring)
        return ring.answer(PROMPT, SHORT), ring.loop


@pytest.fixture(scope="module")
def undisturbed() -> Heard:
    return answered()[0]


def killing(worker: str, step: int) -> Prepare:
    return lambda ring: ring.workers[worker].at.update({step: ring.workers[worker].kill})


def test_every_token_has_the_bits_it_was_chosen_from(undisturbed: Heard) -> None:
    assert len(undisturbed.tokens) == len(undisturbed.bits) == len(undisturbed.gaps_s) == 6
    assert len(set(undisturbed.bits)) == 6


@pytest.mark.parametrize(("worker", "step"), [("first", 1), ("last", 2), ("first", 4)])
def test_a_worker_dies_at_the_step_that_was_said(undisturbed: Heard, worker: str, step: int) -> None:
    steps: list[int] = []

    def prepare(ring: Rehearsal) -> None:
        doomed = ring.workers[worker]
        doomed.at[step] = lambda: (steps.append(doomed.steps), doomed.kill())

    heard, loop = answered(prepare)
    assert (heard, loop.failovers, steps) == (undisturbed, 1, [step])


def test_a_replay_is_timed_once(undisturbed: Heard) -> None:
    heard, loop = answered(killing("last", 4))
    assert len(loop.replays_s) == 1
    assert 0 < loop.replays_s[0] < sum(heard.gaps_s)


def test_an_undisturbed_answer_has_no_replay() -> None:
    assert answered()[1].replays_s == []


def test_a_connection_that_is_cut_is_a_worker_lost(undisturbed: Heard) -> None:
    heard, loop = answered(
        lambda ring: ring.workers["last"].at.update({4: lambda: ring.workers["last"].cut(ring.primary.id)})
    )
    assert (heard, loop.failovers) == (undisturbed, 1)


@pytest.mark.slow
def test_a_worker_that_comes_back_is_used_again(undisturbed: Heard) -> None:
    heard, _ = answered(
        lambda ring: ring.workers["last"].at.update({4: ring.workers["last"].restart}), (HALVES,)
    )
    assert heard == undisturbed


def test_a_share_is_asked_for_at_every_step_and_slows_the_worker() -> None:
    asked: list[int] = []

    def share(step: int) -> float:
        asked.append(step)
        return 0.1

    with Rehearsal("toy", [HALVES]) as ring:
        ring.workers["last"].share = share
        ring.answer(PROMPT, SHORT)
        assert ring.compute_ms("last") > 2 * ring.compute_ms("first")
    assert asked[:7] == list(range(1, 8))  # another step may follow, which frees the cache


def test_requests_side_by_side_share_steps(undisturbed: Heard) -> None:
    with Rehearsal("toy", [HALVES]) as ring:
        heard = ring.answers([(PROMPT, SHORT), *((range(n, n + 70), SHORT) for n in range(200, 203))], 60)
        assert max(map(len, ring.loop.companies)) > 1
    assert heard[0] == undisturbed


def test_a_request_may_begin_once_another_speaks(undisturbed: Heard) -> None:
    with Rehearsal("toy", [HALVES]) as ring:
        heard = ring.answers([(PROMPT, SHORT), (PROMPT[::-1], SHORT)], 60, apart_s=1e-3)
        first, *_ = [company for company in ring.loop.companies if company]
    assert first == (1,)
    assert heard[0] == undisturbed


def test_the_wire_is_the_one_that_was_asked_for(undisturbed: Heard) -> None:
    heard, loop = answered(wire="fp32")
    assert loop.model.wire.name == "FP32"
    assert heard.bits != undisturbed.bits


def test_without_a_plan_for_those_who_live_the_request_ends_with_a_sentence() -> None:
    with Rehearsal("toy", [HALVES]) as ring:
        request = ring.ask(PROMPT, Sampling(max_tokens=200))
        ring.workers["first"].kill()
        ring.loop.stop("over")
        with pytest.raises(NoPipeline):
            request.heard(60)


def test_an_answer_that_does_not_come_in_time_is_none() -> None:
    with Rehearsal("toy", [HALVES]) as ring:
        assert ring.answers([(PROMPT, Sampling(max_tokens=200))], 0.0) == [None]


def test_nothing_is_left_behind() -> None:
    before = set(threading.enumerate())
    answered(killing("first", 4))
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(20)
    assert not [thread.name for thread in left if thread.is_alive()]


@pytest.mark.parametrize(("position", "holding"), [(70, 0), (70, 69), (1, 2)])
def test_a_worker_refuses_to_go_on_where_it_does_not_stand(position: int, holding: int) -> None:
    sentence = refusal("toy", position, holding)
    assert sentence is not None
    assert str(position) in sentence


def test_a_worker_goes_on_where_it_stands_whoever_that_was() -> None:
    assert refusal("toy", 70, 70) is None
