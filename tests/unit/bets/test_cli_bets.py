"""``sharedllm bets`` as a person meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sharedllm.bets.check import check
from sharedllm.cli import bets as cli
from sharedllm.errors import BadBet, CatalogueTampered, UnknownName


def call(lab: Any, *arguments: str) -> Result:
    command, *rest = arguments
    return CliRunner().invoke(cli.app, [command, *rest, "--catalogue", str(lab.root)], catch_exceptions=False)


@pytest.fixture
def decided(lab: Any) -> Any:
    lab.register()
    lab.decide()
    return lab


def test_list_gives_verdict_as_word_and_shape_and_the_standing(decided: Any) -> None:
    printed = call(decided, "list").output
    assert "● STRICT PASS" in printed
    assert "decided" in printed


def test_list_of_ids_is_one_a_line(decided: Any) -> None:
    assert call(decided, "list", "--ids").output == "b118\n"


def test_show_gives_both_renderings(decided: Any) -> None:
    printed = call(decided, "show", "b118").output
    assert "must be ≤ −0.1 nats" in printed
    assert "was −0.2 nats" in printed


def test_show_of_an_undecided_bet_gives_what_must_be(lab: Any) -> None:
    printed = call(lab, "show", "b118").output
    assert "not registered" in printed
    assert "must be ≤ −0.1 nats" in printed


def test_show_says_when_a_registration_was_changed(decided: Any) -> None:
    decided.edit_toml("<= -0.1", "<= -0.15")
    assert "CHANGED SINCE" in call(decided, "show", "b118").output


def test_register_says_what_to_commit(lab: Any) -> None:
    printed = call(lab, "register", "b118").output
    assert "Line 1: b118 is registered" in printed
    assert "git commit -m 'Register b118'" in printed


def test_run_shows_the_judgement_and_the_next_step(lab: Any) -> None:
    lab.register()
    lab.pretend()
    printed = call(lab, "run", "b118").output
    assert "● STRICT PASS · canonical" in printed
    assert "sharedllm bets decide b118 --regime toy" in printed


def test_an_exploratory_run_only_would_be_a_pass(lab: Any) -> None:
    lab.pretend()
    printed = call(lab, "run", "b118", "--set", "tokens=5").output
    assert "would be ● STRICT PASS · exploratory" in printed
    assert "It deviates from the registration in tokens." in printed


def test_a_mistyped_parameter_is_refused_with_the_known_names(lab: Any) -> None:
    with pytest.raises(BadBet, match=r"no parameter 'tokns'. Did you mean 'tokens'\? Known: seeds, tokens"):
        call(lab, "run", "b118", "--set", "tokns=5")


def test_a_parameter_without_a_value_is_refused(lab: Any) -> None:
    with pytest.raises(BadBet, match="--set takes name=value"):
        call(lab, "run", "b118", "--set", "tokens")


def test_decide_says_the_verdict_and_what_to_commit(lab: Any) -> None:
    lab.register()
    lab.pretend()
    lab.run()
    printed = call(lab, "decide", "b118").output
    assert "is decided: ● STRICT PASS" in printed
    assert "git commit -m 'Decide b118 in toy: STRICT PASS'" in printed


def test_check_of_a_sound_catalogue_says_so(decided: Any) -> None:
    assert "Sound: 1 bets, 2 ledger lines." in call(decided, "check").output


def test_check_of_a_tampered_catalogue_fails_with_every_fault(decided: Any) -> None:
    (decided.bet.results / "toy.json").unlink()
    decided.edit_toml("<= -0.1", "<= -0.15")
    with pytest.raises(CatalogueTampered, match=r"(?s)was changed after line 1.*is missing"):
        call(decided, "check")


def test_mark_keeps_the_verdict_in_sight(decided: Any) -> None:
    call(decided, "mark", "b118", "retracted", "--reason", "code-bug", "--by", "b119")
    printed = call(decided, "list").output
    assert "STRICT PASS" in printed
    assert "retracted (code-bug)" in printed


def test_a_new_bet_passes_check(lab: Any) -> None:
    assert "sharedllm bets run b119" in call(lab, "new", "open", "b119-phone").output
    assert check(lab.catalogue) == []


@pytest.mark.parametrize(("chapter", "name"), [("open", "b118-again"), ("open", "phone"), ("../x", "b119-y")])
def test_a_bet_that_is_taken_or_misnamed_is_not_made(lab: Any, chapter: str, name: str) -> None:
    with pytest.raises(BadBet):
        call(lab, "new", chapter, name)
    assert len(lab.catalogue.folders()) == 1


def test_an_unknown_bet_is_a_sentence(lab: Any) -> None:
    with pytest.raises(UnknownName, match="Known: b118"):
        call(lab, "show", "b999")


def test_a_folder_without_a_catalogue_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Change into a checkout"):
        CliRunner().invoke(cli.app, ["list", "--catalogue", str(tmp_path)], catch_exceptions=False)


def test_open_without_jupyterlab_says_how_to_get_it(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(BadBet, match=r"pip install 'sharedllm\[lab\]', then: jupyter lab .*bet\.ipynb"):
        call(lab, "open", "b118")
