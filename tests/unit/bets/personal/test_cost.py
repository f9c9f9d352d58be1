"""Costs count what is kept and what is spent, and the front holds whom nobody beats."""

from __future__ import annotations

from collections.abc import Callable

from sharedllm.bets.evidence import Interval
from sharedllm.bets.personal import Circle, bytes_and_nats, bytes_at_fp16, front, step_cpu_s

Make = Callable[..., Circle]


def test_gains_take_two_bytes_each(circle: Make) -> None:
    assert bytes_at_fp16(circle().own("count", 0)) == 2 * 5 * 16  # two norms in each of two layers, and one


def test_a_bias_on_tokens_takes_two_bytes_for_each_and_four_for_its_token(circle: Make) -> None:
    bias = circle().fit("count", "unigram", 0).adapter
    assert bytes_at_fp16(bias) == 6 * len(bias.tensors["tokens"])


def test_a_fit_of_fewer_tokens_takes_fewer_steps(circle: Make) -> None:
    assert len(circle().fit("count", "norm", 0, tokens=64).train_nats) == 2


def test_every_method_is_timed(circle: Make) -> None:
    one = circle()
    spent = step_cpu_s(
        one.base,
        one.authors["count"].train,
        ["norm", "full"],
        one.budget,
        steps=4,
        rounds=2,
        precision="fp32",
    )
    assert min(spent["norm"], spent["full"]) > 0


def test_who_costs_more_and_gains_less_is_behind_the_front() -> None:
    points = {"small": (1.0, 0.1), "large": (9.0, 0.3), "beaten": (5.0, 0.05), "as good": (9.0, 0.3)}
    assert front(points) == {"small": True, "large": True, "beaten": False, "as good": True}


def test_who_gains_as_much_for_more_is_behind_the_front() -> None:
    assert front({"cheap": (1.0, 0.1), "dear": (2.0, 0.1)}) == {"cheap": True, "dear": False}


def test_a_method_is_one_point_at_its_bytes() -> None:
    drawn = bytes_and_nats(
        {"large": 900, "small": 20},
        {"large": Interval(0.3, 0.2, 0.4, 0.95, 5), "small": Interval(0.1, 0.0, 0.2, 0.95, 5)},
    )
    assert (drawn.x, drawn.y) == ([20.0, 900.0], {"small": [0.1, None], "large": [None, 0.3]})
