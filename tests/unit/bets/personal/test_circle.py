"""A circle shares fits and losses, gives every arm the same tokens, and lets noise keep what it learnt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sharedllm import adapters
from sharedllm.bets.evidence import Interval
from sharedllm.bets.losses import Losses
from sharedllm.bets.personal import Circle, compare, median_perplexity, scored, scoring, share
from sharedllm.bets.personal import circle as room
from sharedllm.errors import BadRecipe

Make = Callable[..., Circle]


def test_a_second_circle_fits_and_scores_nothing_again(circle: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = circle().nats("count", circle().own("step", 0))

    def refuse(*_: object) -> None:
        raise AssertionError("this was computed before")

    monkeypatch.setattr(scoring, "_nats", refuse)
    monkeypatch.setattr(adapters.sweep.__globals__["_Task"], "fit", refuse)
    again = circle()
    np.testing.assert_array_equal(first, again.nats("count", again.own("step", 0)))


def test_a_user_without_a_sweep_takes_the_median_rate_of_the_others(circle: Make) -> None:
    one = circle(swept=("count",))
    assert one.lr("step", "norm") == one.lr("count", "norm") == one.lr(None, "norm")


def test_a_fit_made_anew_is_the_kept_one(circle: Make) -> None:
    one = circle()
    made, _ = one.anew("count", "norm", 0)
    kept = one.own("count", 0).tensors
    assert all((kept[name] == tensor).all() for name, tensor in made.adapter.tensors.items())


def test_a_sweep_says_how_many_fits_it_took(circle: Make) -> None:
    assert circle().fits_of_sweep("count", "norm") == 3


def test_sweeps_of_strangers_are_refused(circle: Make) -> None:
    with pytest.raises(BadRecipe, match="swept for nobody"):
        circle(swept=())


def test_an_adapter_helps_its_own_user_more_than_the_other(circle: Make) -> None:
    gains_UU = circle().matrix(0)
    assert np.trace(gains_UU) > np.trace(gains_UU[::-1])


def test_a_fit_on_noise_keeps_its_last_step(circle: Make) -> None:
    one = circle()
    assert one.random("count", 0).best_step == one.budget.steps


def test_noise_is_the_same_for_users_of_one_rate(circle: Make) -> None:
    one = circle(swept=("count",))
    assert one.random("count", 0) is not None
    np.testing.assert_array_equal(
        one.nats("count", one.random("count", 0).adapter), one.nats("count", one.random("step", 0).adapter)
    )


def test_only_an_adapter_that_helps_on_validation_text_is_kept(circle: Make) -> None:
    one = circle()
    own = one.own("count", 0)
    harmful = replace(own, tensors={name: -20 * delta for name, delta in own.tensors.items()})
    assert (one.vetted("count", own), one.vetted("count", harmful)) == (own, None)


def test_pooled_text_has_as_much_of_each_author() -> None:
    pool = room._pooled([[0] * 5000, [1] * 900, [2] * 90_000], 3 * room._PIECE)
    assert [pool.count(author) for author in range(3)] == [3 * room._PIECE, 900, 3 * room._PIECE]


def test_a_general_fit_leaves_out_whom_it_should(circle: Make) -> None:
    one = circle()
    alone = one.general(0, without="step").adapter.tensors
    assert any((alone[name] != tensor).any() for name, tensor in one.general(0).adapter.tensors.items())


def test_an_arm_is_the_mean_loss_of_its_adapters(circle: Make) -> None:
    one = circle()
    losses = one.losses({"both": lambda user: [None, one.own(user, 0)]})
    expected = (one.nats("step").mean() + one.nats("step", one.own("step", 0)).mean()) / 2
    assert losses.table()["step"]["both"] == pytest.approx(expected)


def test_arms_may_be_scored_for_some_users_alone(circle: Make) -> None:
    assert list(circle().losses({"base": lambda user: [None]}, ["step"]).table()) == ["step"]


def test_a_prefix_is_read_before_each_excerpt(circle: Make) -> None:
    one = circle()
    texts = one.authors["count"].test
    first = len(texts[0].tokens) - 1
    prefix = list(texts[0].tokens[:5])
    joined = type(texts[0])("joined", (*prefix, *texts[0].tokens))
    np.testing.assert_allclose(
        scored(one.base, texts, prefix=prefix)[:first], scored(one.base, [joined])[5:], rtol=1e-4
    )


def test_the_prefix_is_as_long_as_serves_validation_text_best(
    circle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse_the_further_from_four(*_: object, prefix: list[int]) -> np.ndarray:
        return np.array([abs(len(prefix) - 4.0)])

    monkeypatch.setattr(room, "scored", worse_the_further_from_four)
    one = circle()
    assert one.prefix("count", [2, 5, 9]) == one.authors["count"].train[-5:]


def test_a_comparison_has_the_sign_of_what_is_lost_without(circle: Make) -> None:
    one = circle()
    losses = one.losses({"base": lambda user: [None], "own": lambda user: [one.own(user, 0)]})
    found = compare(losses, one.users, "base", "own", 50)
    assert (found.won, found.pooled.sign_p) == (2, 0.25)


def test_the_median_is_that_of_documents_perplexities() -> None:
    losses = Losses()
    losses.add("one", ["a", "a", "b", "c"], {"base": [0.0, 2.0, 0.5, 4.0]})
    assert median_perplexity(losses) == {"one": {"base": pytest.approx(np.e)}}


def test_all_of_a_gain_is_a_share_of_one(circle: Make) -> None:
    one = circle()
    losses = one.losses({"base": lambda user: [None], "own": lambda user: [one.own(user, 0)]})
    gain = compare(losses, one.users, "base", "own", 50)
    whole = share(gain, gain)
    assert whole == Interval(1.0, 1.0, 1.0, 0.95, 2)


def test_the_share_of_no_gain_is_none(circle: Make) -> None:
    one = circle()
    losses = one.losses({"base": lambda user: [None], "same": lambda user: [None]})
    nothing = compare(losses, one.users, "base", "same", 50)
    assert share(nothing, nothing) is None
