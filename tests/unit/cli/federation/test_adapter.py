"""The commands for adapters: what is printed, kept, refused; the fit itself is tested with its room."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from typer.testing import CliRunner

from sharedllm import store as model_store
from sharedllm.adapters import Adapter, exchange, library, personal, write
from sharedllm.adapters.personal import Gain, Personal
from sharedllm.cli.federation import adapter as commands
from sharedllm.cli.main import GROUPS
from sharedllm.errors import BadText, UnknownName

MINE = Adapter("norm", "b" * 64, {"norm.weight": torch.linspace(0, 1, 8)})
HELPED = Personal(
    adapter=MINE,
    precision="int8",
    gain=Gain(0.142, 0.09, 0.194, 3.4, 4120, 3),
    rounding_nats={"fp32": 0.0, "fp16": 0.00001, "int8": 0.0004},
    unit="document",
    documents=12,
    train_tokens=9000,
    validation_tokens=1500,
    found=None,
    seconds=61.0,
    base="toy",
)
TEXT = (
    "".join(f"Some text of paragraph {i}, which is about nothing at all.\n\n" for i in range(250)).strip()
    + "\n"
)
DID_NOT = dataclasses.replace(HELPED, gain=Gain(0.01, -0.02, 0.04, 3.4, 4120, 3))


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "home"))


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "one.md").write_text(TEXT)
    (folder / "photo.jpg").write_bytes(b"x")
    return folder


@pytest.fixture
def made(monkeypatch):
    """Stand in for a fit; loading ``toy`` is quick."""
    asked = []

    def use(result: Personal) -> list[dict[str, object]]:
        def fit_text(base, documents, **given):
            asked.append(given | {"base": base.manifest.name, "texts": [d.text for d in documents]})
            return result

        monkeypatch.setattr(personal, "fit_text", fit_text)
        return asked

    return use


def run(*arguments: object):
    return CliRunner().invoke(commands.app, [str(argument) for argument in arguments])


def test_a_fit_that_helped_is_kept_under_its_name_and_says_so(notes, made):
    asked = made(HELPED)
    result = run("fit", notes, "--name", "work", "--base", "toy")
    assert result.exit_code == 0, result.output
    assert "it helped." in result.stdout
    assert "Saved as work: " in result.stdout
    assert library.about("work").about["gain_nats"] == 0.142
    assert (asked[0]["base"], asked[0]["texts"], asked[0]["precision"]) == ("toy", [TEXT], "int8")


def test_what_was_left_out_is_said_with_its_reason(notes, made):
    made(HELPED)
    assert "photo.jpg: it is no text by its ending '.jpg'." in run("fit", notes, "--base", "toy").stderr


def test_a_fit_that_did_not_help_saves_nothing_and_fails(notes, made):
    made(DID_NOT)
    result = run("fit", notes, "--base", "toy")
    assert result.exit_code == 1
    assert "did not clearly help" in result.stdout
    assert "Nothing was saved" in result.stdout
    assert library.names() == []


def test_keep_saves_it_all_the_same(notes, made):
    made(DID_NOT)
    assert run("fit", notes, "--base", "toy", "--keep").exit_code == 0
    assert library.names() == ["me"]


def test_an_adapter_is_not_replaced_unasked(notes, made):
    made(HELPED)
    run("fit", notes, "--base", "toy")
    assert isinstance(run("fit", notes, "--base", "toy").exception, UnknownName)
    assert run("fit", notes, "--base", "toy", "--replace").exit_code == 0


def test_a_folder_without_text_is_refused_before_a_model_is_loaded(tmp_path):
    result = run("fit", tmp_path, "--base", "no-such-model")
    assert isinstance(result.exception, BadText)


def test_too_little_text_is_refused_before_a_model_is_looked_for_with_how_much_to_give(tmp_path):
    (tmp_path / "short.txt").write_text("Some text.")
    result = run("fit", tmp_path, "--base", "no-such-model")
    assert isinstance(result.exception, BadText)
    assert "give about 14 kB" in str(result.exception)


def test_text_of_too_few_tokens_is_refused_before_weights_are_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(model_store, "load", lambda *_, **__: pytest.fail("the weights were loaded"))
    (tmp_path / "short.txt").write_text(TEXT[:3000])
    refused = run("fit", tmp_path, "--base", "toy").exception
    assert isinstance(refused, BadText)
    assert "takes 2,000. Give about" in str(refused)


def test_the_list_says_what_each_is_and_which_is_damaged():
    assert "There are no adapters yet" in run("list").stdout
    library.save("me", MINE, {"base": "toy", "gain_nats": 0.142}, "int8")
    path = library.save("old", MINE, {})
    path.write_bytes(path.read_bytes()[:-2])
    me, old = run("list").stdout.splitlines()
    assert me.startswith("me   norm       int8")
    assert "of toy  +0.142 nats per token gained" in me
    assert "damaged" in old


def test_inspect_shows_base_bytes_method_and_what_rounding_costs():
    library.save("me", MINE, HELPED.about(), "int8")
    shown = run("inspect", "me").stdout
    for expected in ("norm", "b" * 64, "8 in 1 tensors", "as int8", "'int8': 0.0004", "it helped."):
        assert expected in shown


def test_inspect_takes_a_file_of_any_maker_and_prints_nothing_that_steers_a_terminal(tmp_path):
    write(tmp_path / "theirs", MINE, about={"base": "\x1b[2Jtoy", "gain_nats": "much"})
    shown = run("inspect", tmp_path / "theirs")
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout


def test_export_and_import_go_through_the_exchange(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(exchange, "write_folder", lambda *given: told.append(given))
    monkeypatch.setattr(exchange, "read_folder", lambda folder, base: MINE)
    library.save("me", MINE, {})
    assert run("export", "me", tmp_path / "out", "--base", "toy").exit_code == 0
    assert (told[0][0], told[0][2].manifest.name) == (tmp_path / "out", "toy")
    assert run("import", tmp_path / "out", "--name", "theirs", "--base", "toy").exit_code == 0
    assert library.names() == ["me", "theirs"]
    assert isinstance(run("import", tmp_path / "out", "--name", "me", "--base", "toy").exception, UnknownName)


def test_a_removed_adapter_is_gone():
    library.save("me", MINE, {})
    assert run("remove", "me").stdout == "Removed me.\n"
    assert isinstance(run("remove", "me").exception, UnknownName)


def test_the_group_is_in_the_table():
    assert GROUPS["adapter"][0] == commands.__name__
