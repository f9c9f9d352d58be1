"""Who may decide a bet: only a canonical run, once, and it says everything about itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sharedllm.bets import read_result
from sharedllm.bets.check import check
from sharedllm.bets.decide import decide, mark, register
from sharedllm.bets.ledger import Ledger, standing, verdict
from sharedllm.errors import BadBet

WORSE = {"difference_nats": 5, "control_difference_nats": 0.2}


def last_event(lab: Any) -> Any:
    return Ledger(lab.catalogue.ledger).read()[-1]


def test_a_canonical_run_decides(lab: Any) -> None:
    lab.register()
    lab.decide()
    assert (last_event(lab).event, last_event(lab).verdict) == ("decided", "STRICT PASS")
    assert check(lab.catalogue) == []


def test_a_bet_can_fail_catastrophically_and_stays(lab: Any) -> None:
    lab.register()
    lab.decide(WORSE)
    assert last_event(lab).verdict == "CATASTROPHIC"
    assert check(lab.catalogue) == []


def test_a_failed_control_decides_void(lab: Any) -> None:
    lab.register()
    lab.decide({"difference_nats": -1, "control_difference_nats": -1})
    assert last_event(lab).verdict == "VOID"


def test_a_result_says_where_it_came_from(lab: Any) -> None:
    lab.register()
    lab.pretend()
    result = lab.run()
    assert result.code.commit == lab.git("rev-parse", "HEAD").strip()
    assert result.environment.torch
    assert result.hardware.cores >= 1
    assert (result.fate, result.ledger_line, result.deviations) == ("canonical", 1, [])


def refused(lab: Any, sentence: str) -> None:
    with pytest.raises(BadBet, match=sentence):
        decide(lab.catalogue, lab.bet, "toy")
    assert not list(lab.bet.results.glob("*"))


def test_a_dirty_tree_cannot_decide_a_bet(lab: Any) -> None:
    lab.register()
    (lab.root / "constraints.txt").write_text("torch==1.0\n")
    lab.pretend()
    assert lab.run().fate == "exploratory"
    refused(lab, r"working tree was not clean: constraints\.txt")


def test_an_untracked_file_makes_a_tree_dirty(lab: Any) -> None:
    lab.register()
    (lab.root / "sitecustomize.py").write_text("")
    lab.pretend()
    lab.run()
    refused(lab, r"not clean: sitecustomize\.py")


def test_an_unregistered_bet_cannot_be_decided(lab: Any) -> None:
    lab.pretend()
    lab.run()
    refused(lab, "b118 is not registered")


def test_a_registration_that_was_not_committed_before_the_run_cannot_be_decided(lab: Any) -> None:
    lab.pretend()
    register(lab.catalogue, lab.bet)
    lab.run()
    refused(lab, "was not committed before the run")


def test_registering_after_the_run_does_not_help(lab: Any) -> None:
    lab.pretend()
    lab.run()
    lab.register()
    refused(lab, "only a canonical one decides. b118 is not registered")


def test_a_smoke_run_never_decides(lab: Any) -> None:
    lab.register()
    lab.pretend()
    assert lab.run(tier="smoke", out_dir=lab.catalogue.runs / "b118" / "toy-full").fate == "exploratory"
    refused(lab, "It is of tier smoke")


def test_a_run_with_other_parameters_never_decides(lab: Any) -> None:
    lab.register()
    lab.pretend()
    lab.run(overrides={"tokens": 3})
    refused(lab, "It deviates from the registration in tokens")


def test_criteria_that_changed_after_registration_decide_nothing(lab: Any) -> None:
    lab.register()
    lab.edit_toml("<= -0.1", "<= 0.5")
    lab.commit("Loosen the criterion")
    lab.pretend()
    lab.run()
    refused(lab, "was changed after it was registered in line 1")


def test_without_a_run_there_is_nothing_to_decide(lab: Any) -> None:
    lab.register()
    refused(lab, "Run it first: sharedllm bets run b118 --regime toy")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("metrics", "difference_nats"), -9.0, "not those that its executed notebook recorded"),
        (("verdict",), "FAIL", "Its numbers give STRICT PASS, it says FAIL"),
        (("criteria", 0, "held"), False, "not what its numbers give"),
        (("parameters", "tokens"), 7, "Its parameters are not the registered ones"),
        (("code", "commit"), "0" * 40, "was not committed before the run"),
        (("code", "notebook_sha256"), "0" * 64, "Its notebook is not the one that commit"),
        (("code", "executed_sha256"), "0" * 64, "executed notebook is missing or was changed"),
        (("registration_sha256",), "0" * 64, "under another registration"),
        (("code", "dirty"), True, "it was edited"),
        (("regime",), "135m", "holds a run of b118 in 135m"),
    ],
)
def test_a_result_that_was_edited_before_deciding_is_refused(
    lab: Any, path: tuple[Any, ...], value: Any, sentence: str
) -> None:
    lab.register()
    lab.pretend()
    lab.run()
    file = lab.catalogue.runs / "b118" / "toy-full" / "result.json"
    document = json.loads(file.read_text())
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(document))
    refused(lab, sentence)


def test_the_same_run_decides_once(lab: Any) -> None:
    lab.register()
    lab.decide()
    with pytest.raises(BadBet, match="is in the ledger already"):
        decide(lab.catalogue, lab.bet, "toy")


def test_a_second_run_that_agrees_replicates(lab: Any) -> None:
    lab.register()
    lab.decide()
    lab.decide(wall_s=2.0)
    assert last_event(lab).event == "replicated"
    assert sorted(path.name for path in lab.bet.results.glob("*.json")) == ["toy.json", "toy.r2.json"]
    assert check(lab.catalogue) == []


def test_a_second_run_that_disagrees_is_stated_and_does_not_replace_the_verdict(lab: Any) -> None:
    lab.register()
    lab.decide()
    lab.decide(WORSE)
    events = Ledger(lab.catalogue.ledger).read()
    assert str(standing(events, "b118", "toy")) == "corrected (did-not-replicate)"
    assert verdict(events, "b118", "toy") == "STRICT PASS"
    assert check(lab.catalogue) == []


def test_an_amended_registration_keeps_the_old_result_under_its_own_name(lab: Any) -> None:
    lab.register()
    lab.decide()
    lab.edit_toml("<= -0.1", "<= -0.3")
    lab.commit("Tighten")
    register(lab.catalogue, lab.bet, amend="the level was below the noise")
    lab.commit("Amend b118")
    lab.decide(wall_s=2.0)
    assert last_event(lab).verdict == "LENIENT PASS"
    assert len(list(lab.bet.results.glob("toy*.json"))) == 2
    assert check(lab.catalogue) == []


def test_another_registration_needs_a_reason(lab: Any) -> None:
    lab.register()
    lab.edit_toml("<= -0.1", "<= -0.3")
    lab.commit("Tighten")
    with pytest.raises(BadBet, match=r"registered otherwise in line 1.*--amend"):
        register(lab.catalogue, lab.bet)


def test_the_same_registration_is_not_registered_twice(lab: Any) -> None:
    lab.register()
    with pytest.raises(BadBet, match="registered with exactly this registration, in line 1"):
        register(lab.catalogue, lab.bet)


def test_an_uncommitted_bet_is_not_registered(lab: Any) -> None:
    lab.edit_toml("<= -0.1", "<= -0.3")
    with pytest.raises(BadBet, match=r"Commit .*bet\.toml first"):
        register(lab.catalogue, lab.bet)


def test_a_retraction_needs_a_reason_of_the_list(lab: Any) -> None:
    lab.register()
    lab.decide()
    with pytest.raises(BadBet, match="reason 'tired' is none of"):
        mark(lab.catalogue, lab.bet, "retracted", reason="tired", by=None, regime=None)
    mark(lab.catalogue, lab.bet, "retracted", reason="code-bug", by="b062", regime=None)
    assert read_result(lab.bet.results / "toy.json").verdict == "STRICT PASS"


def test_a_package_that_changes_during_the_run_makes_it_exploratory(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.register()
    lab.pretend()
    hashes = iter(["a" * 64, "b" * 64])
    monkeypatch.setattr("sharedllm.bets.provenance.package_sha256", lambda: next(hashes))
    result = lab.run()
    assert (result.fate, result.notes) == (
        "exploratory",
        ["The package or the notebook changed while it ran."],
    )
