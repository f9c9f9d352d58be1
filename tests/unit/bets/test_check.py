"""Tampering with a decided catalogue: each way is named."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from sharedllm.bets import Catalogue
from sharedllm.bets.check import check


@pytest.fixture
def decided(lab: Any) -> Any:
    lab.register()
    lab.decide()
    assert check(lab.catalogue) == []
    return lab


def faults(lab: Any) -> str:
    return "\n".join(check(lab.catalogue))


def ledger_lines(lab: Any) -> list[bytes]:
    return list(lab.catalogue.ledger.read_bytes().splitlines(keepends=True))


def test_an_edited_ledger_line_is_named(decided: Any) -> None:
    first, second = ledger_lines(decided)
    decided.catalogue.ledger.write_bytes(first.replace(b'"at_utc":"20', b'"at_utc":"19') + second)
    assert "line 2 does not follow from line 1" in faults(decided)


def test_an_edited_last_ledger_line_is_named_by_git(decided: Any) -> None:
    first, second = ledger_lines(decided)
    decided.catalogue.ledger.write_bytes(first + second.replace(b"STRICT PASS", b"LENIENT PASS"))
    assert "LEDGER.jsonl line 2 is not what it was in commit" in faults(decided)


def test_a_removed_last_ledger_line_is_named_by_git_also_when_committed(decided: Any) -> None:
    decided.catalogue.ledger.write_bytes(ledger_lines(decided)[0])
    decided.commit("Forget it")
    assert "LEDGER.jsonl line 2 is not what it was in commit" in faults(decided)


def test_a_removed_ledger_is_named(decided: Any) -> None:
    decided.catalogue.ledger.unlink()
    assert "LEDGER.jsonl line 1 is not what it was" in faults(decided)


def test_a_criterion_changed_after_registration_is_named(decided: Any) -> None:
    decided.edit_toml("<= -0.1", "<= -0.15")
    assert "[registration] of its bet.toml was changed after line 1" in faults(decided)


def test_an_editorial_change_is_allowed(decided: Any) -> None:
    decided.edit_toml("The outcome goes here", "A better title")
    assert faults(decided) == ""


def test_a_number_changed_in_a_result_is_named(decided: Any) -> None:
    path = decided.bet.results / "toy.json"
    path.write_text(path.read_text().replace("-0.2", "-0.9"))
    assert "toy.json is not a result that the ledger knows: a number in it was changed" in faults(decided)


def test_a_removed_result_is_named(decided: Any) -> None:
    (decided.bet.results / "toy.json").unlink()
    assert "the result of ledger line 2 (toy, STRICT PASS) is missing" in faults(decided)


def test_a_result_without_a_ledger_line_is_named(decided: Any) -> None:
    (decided.bet.results / "135m.json").write_text("{}")
    assert "135m.json is not a result that the ledger knows" in faults(decided)


def test_an_edited_executed_notebook_is_named(decided: Any) -> None:
    path = decided.bet.results / "toy.ipynb"
    path.write_text(path.read_text().replace("-0.2", "-0.9"))
    assert "Its executed notebook is missing or was changed" in faults(decided)


def test_an_executed_notebook_that_is_too_large_is_named(decided: Any) -> None:
    (decided.bet.results / "toy.ipynb").write_text("x" * 200_001)
    assert "toy.ipynb has more than 200,000 bytes" in faults(decided)


def test_a_removed_bet_is_missed(decided: Any) -> None:
    decided.git("rm", "-rq", "catalogue/transparency")
    assert "line 1 speaks of b118, which is not in the catalogue" in faults(decided)


def test_a_result_whose_commit_left_the_history_is_named(decided: Any) -> None:
    tree = decided.git("rev-parse", "HEAD^{tree}").strip()
    fresh = decided.git("commit-tree", tree, "-m", "All at once").strip()
    decided.git("update-ref", "refs/heads/main", fresh)
    assert "is not part of this history" in faults(decided)


def test_a_malformed_bet_is_one_fault_and_hides_no_other(decided: Any) -> None:
    decided.edit_toml("limit_s", "limt_s")
    said = check(decided.catalogue)
    assert len(said) == 1
    assert "Did you mean 'limit_s'" in said[0]


def test_a_notebook_with_outputs_is_named(decided: Any) -> None:
    path = decided.folder / "bet.ipynb"
    path.write_text(path.read_text().replace('"outputs": []', '"outputs": [{}]', 1))
    assert "clear them" in faults(decided)


def test_two_bets_of_one_id_are_named(decided: Any) -> None:
    copy = decided.catalogue.root / "transparency" / "b118-other"
    copy.mkdir()
    for name in ("bet.toml", "bet.ipynb"):
        (copy / name).write_text((decided.folder / name).read_text())
    assert "b118 is the id of" in faults(decided)


def test_a_catalogue_without_history_is_not_called_sound(decided: Any, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    decided.catalogue.root.rename(bare / "catalogue")
    assert "no git history here" in "\n".join(check(Catalogue(bare / "catalogue")))


def test_a_shallow_clone_is_not_called_sound(decided: Any, tmp_path: Path) -> None:
    source = f"file://{decided.root}"
    subprocess.run(["git", "clone", "-q", "--depth", "1", source, str(tmp_path / "shallow")], check=True)
    assert "git fetch --unshallow" in "\n".join(check(Catalogue(tmp_path / "shallow" / "catalogue")))
