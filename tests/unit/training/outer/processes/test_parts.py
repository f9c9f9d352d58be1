"""Shards, settings, lies and churn: what needs no second process."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sharedllm.errors import BadAggregate, BadRecipe, BadUpdate
from sharedllm.training import Streams
from sharedllm.training.outer import CODECS, Coding, decode, encode
from sharedllm.training.outer.compression import Codec
from sharedllm.training.outer.processes import (
    Churn,
    Crew,
    Settings,
    State,
    check_attack,
    fewest,
    host,
    listen,
)
from sharedllm.training.outer.processes.learner import read_text, shard, write_text
from sharedllm.training.outer.processes.liar import Liar
from tests.unit.training.conftest import counted
from tests.unit.training.outer.processes.conftest import tiny_settings


def test_mixed_shards_are_all_of_the_text_and_overlap_nowhere() -> None:
    settings = tiny_settings(workers=3)
    parts = [shard(counted(), settings, number).tokens for number in range(3)]
    whole = counted().tokens
    assert {name: torch.cat([part[name] for part in parts]).tolist() for name in whole} == {
        name: stream.tolist() for name, stream in whole.items()
    }


def test_shards_by_domain_hold_one_domain_each() -> None:
    settings = tiny_settings(shards="domains")
    assert [list(shard(counted(), settings, number).tokens) for number in range(3)] == [
        ["threes"],
        ["up"],
        ["threes"],
    ]


def test_a_newcomer_shares_a_shard_with_one_who_was_there() -> None:
    settings = tiny_settings(workers=3)
    assert shard(counted(), settings, 4).sha256 == shard(counted(), settings, 1).sha256


def test_other_text_than_the_trainings_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "text", Streams({"up": torch.arange(9)}))
    with pytest.raises(BadRecipe, match="not the text of this training"):
        read_text(tmp_path / "text", tiny_settings())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"workers": 0}, "each must be at least 1"),
        ({"shards": "none"}, "mixed shards or by domains"),
        ({"patience_s": 0.0}, "patience is 0.0 s"),
        ({"patience_s": math.inf}, "patience is inf s"),
        ({"codec": "1bit"}, "no codec '1bit'"),
        ({"outer_momentum": 1.0}, "momentum"),
        (
            {"rounds": 3, "inner_steps": 2, "recipe": tiny_settings(rounds=2).recipe},
            "has 4 steps for 3 rounds",
        ),
    ],
)
def test_settings_that_can_not_run_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadRecipe, match=sentence):
        tiny_settings(**changes)


def test_more_liars_than_the_rule_bears_are_refused() -> None:
    with pytest.raises(BadAggregate, match="at least 5"):
        tiny_settings(workers=4, rule="nnm+median", liars=2)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"null", b'{"config": 1}', b"{" * 70_000])
def test_settings_that_make_no_sense_are_refused(data: bytes) -> None:
    with pytest.raises(BadRecipe):
        Settings.from_json(data)


def test_patience_may_change_when_a_training_is_resumed() -> None:
    assert tiny_settings(patience_s=1.0).sha256 == tiny_settings(patience_s=9.0).sha256


@pytest.mark.parametrize(("rule", "liars", "least"), [("mean", 1, 1), ("median", 1, 3), ("krum", 1, 5)])
def test_the_fewest_workers_are_what_the_rule_needs(rule: str, liars: int, least: int) -> None:
    assert fewest(rule, liars) == least


def test_checkpoints_are_written_whenever_so_many_steps_are_over() -> None:
    settings = tiny_settings(rounds=6, inner_steps=3)  # the recipe writes every 4 steps
    assert [settings.writes_after(round_) for round_ in range(6)] == [False, True, True, True, False, True]


def test_a_state_is_another_when_only_its_momentum_differs() -> None:
    start = State.start(torch.zeros(3))
    moved = dataclasses.replace(start, momentum_P=torch.tensor([0.0, 0.0, 1e-9]))
    assert start.sha256 != moved.sha256


def test_a_packed_state_comes_back_whole() -> None:
    state = State(4, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    assert State.unpacked(4, state.packed()).sha256 == state.sha256


def crew(folder: Path, liars: dict[int, str] | None = None, **changes: Any) -> Crew:
    settings = tiny_settings(**changes)
    return Crew(
        settings, counted(), folder, store=host(settings, listen("127.0.0.1", 0)), numbers=(), liars=liars
    )


def test_a_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    crew(tmp_path, rounds=1)
    with pytest.raises(BadRecipe, match="other recipe, rounds"):
        crew(tmp_path, rounds=2)


def test_a_folder_of_other_lies_is_refused(tmp_path: Path) -> None:
    crew(tmp_path, {1: "scale"})
    with pytest.raises(BadRecipe, match="other attacks"):
        crew(tmp_path, {1: "nan"})


def test_a_folder_of_the_same_training_is_gone_on_with(tmp_path: Path) -> None:
    crew(tmp_path, patience_s=1.0)
    assert crew(tmp_path, patience_s=2.0)


def liar(attack: str) -> Liar:
    return Liar(tiny_settings(workers=4, rule="nnm+median", liars=1), attack, 1)


@pytest.mark.parametrize("codec", CODECS)
def test_bytes_of_ones_are_no_numbers_in_any_codec(codec: Codec) -> None:
    message = liar("nan").damage(encode(torch.ones(5_000), Coding(codec)))
    with pytest.raises(BadUpdate):
        decode(message, 5_000)


def test_a_stale_liar_repeats_what_it_said_first() -> None:
    stale = liar("stale")
    stale.lie(torch.tensor([1.0]), 0)
    assert stale.lie(torch.tensor([2.0]), 1).tolist() == [1.0]


def test_a_liar_lays_what_it_heard_around_its_own_update() -> None:
    mimic = liar("mimic")
    mimic.heard(torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [9.0, 9.0]]), own=3)
    assert mimic.lie(torch.tensor([10.0, 5.0]), 1).tolist() in ([8.0, 5.0], [12.0, 5.0])


def test_a_liar_that_heard_nothing_yet_hides_as_an_honest_worker() -> None:
    assert liar("optimised-alie").lie(torch.tensor([3.0]), 0).tolist() == [3.0]


def test_a_liar_that_heard_no_numbers_from_one_learns_from_the_others() -> None:
    alie = liar("alie")
    alie.heard(torch.tensor([[0.0], [math.nan], [4.0]]), own=2)
    assert torch.isfinite(alie.lie(torch.tensor([1.0]), 1)).all()


@pytest.mark.parametrize(
    "attack", ["scale", "sign-flip", "alie", "ipm", "mimic", "gaussian", "optimised-alie"]
)
def test_a_lie_can_always_be_written(attack: str) -> None:
    one = liar(attack)
    assert encode(one.lie(torch.full((4,), 1e30), 0), Coding("fp32"))


def test_an_attack_that_there_is_not_is_refused() -> None:
    with pytest.raises(BadRecipe, match="no attack 'shout'"):
        check_attack("shout")


@pytest.mark.parametrize(
    "plan", ["kill", "kill:1", "freeze:1@2", "join:1@2", "kill:9@1", "kill:1@99", "join@0"]
)
def test_churn_that_can_not_happen_is_refused(plan: str) -> None:
    with pytest.raises(BadRecipe, match="churn"):
        Churn.of(plan, workers=4, rounds=6)


class Recorder:
    """Writes down what a plan does to a crew."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *number: self.done.append(name + "".join(map(str, number)))


def test_a_plan_is_carried_out_once_and_in_the_rounds_that_it_names() -> None:
    churn, crew = Churn.of("kill:2@2, freeze:1@1-2,join@1", workers=4, rounds=6), Recorder()
    for round_ in (0, 0, 1, 1):
        for worker in (1, 2):
            churn.after({"event": "began", "round": round_, "worker": worker}, crew)  # type: ignore[arg-type]
        churn.after({"event": "round", "round": round_, "worker": 0}, crew)  # type: ignore[arg-type]
    assert crew.done == ["freeze1", "join", "kill2", "thaw1"]
