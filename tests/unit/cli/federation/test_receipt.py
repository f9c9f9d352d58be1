"""``sharedllm receipt``: exit codes, sentences, and a page that says all it shows in words and numbers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sharedllm.cli.federation.receipt import app
from sharedllm.cli.main import main
from sharedllm.errors import BadReceipt
from sharedllm.nodes.identity import NodeKey
from tests.unit.attribution.receipts.making import CLIENT, CLIENT_KEY, log_key, of, receipt


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "answer.json"
    path.write_bytes(receipt(tmp_path / "log"))
    return path


@pytest.fixture
def forged(file: Path) -> Path:
    whole = json.loads(file.read_bytes())
    whole["records"][1]["rows"][0][0] = 99
    file.write_text(json.dumps(whole))
    return file


def run(*arguments: object) -> str:
    """The output of a command that must succeed."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    assert done.exit_code == 0
    return done.output


def test_a_good_receipt_is_said_to_be_good_with_what_it_leaves_open(file):
    said = run("verify", file, "--log-key", log_key(), "--client-key", CLIENT_KEY)
    assert "is good. It proves:" in said
    assert "It leaves open:" in said


def test_its_client_countersigns_a_receipt(file, tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREDLLM_STATE", str(tmp_path))
    key = tmp_path / "client" / "client.key"
    key.parent.mkdir()
    key.write_bytes(NodeKey(CLIENT)._pem())
    assert CLIENT_KEY in run("acknowledge", file)
    assert "countersigned" in run("verify", file)


def test_nobody_else_countersigns_it(file, tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREDLLM_STATE", str(tmp_path))
    before = file.read_bytes()
    with pytest.raises(BadReceipt):
        run("acknowledge", file)
    assert file.read_bytes() == before


def test_a_forged_receipt_is_refused(forged):
    with pytest.raises(BadReceipt, match="Record 1"):
        run("verify", forged)


@pytest.mark.parametrize(("command", "code"), [(["verify"], 1), (["show"], 1)])
def test_the_exit_code_of_a_forged_receipt_is_one_and_its_sentence_on_stderr(
    forged, command, code, monkeypatch, capfd
):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # as ``main`` would, for good
    monkeypatch.setattr(sys, "argv", ["sharedllm", "receipt", *command, str(forged)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr()
    assert (ended.value.code, said.out) == (code, "")
    assert said.err.startswith("sharedllm: Record 1 (tokens) was changed")


def test_verifying_needs_no_torch(file):
    script = (
        "import sys; from sharedllm.cli.federation.receipt import app\n"
        f"try: app(['verify', {str(file)!r}])\n"
        "except SystemExit as done: assert not done.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(BadReceipt, match="can't be read"):
        run("verify", tmp_path / "none")


def test_the_table_shows_numbers_beside_every_bar(file):
    lines = [line for line in run("show", file).splitlines() if "#1" in line]
    assert len(lines) == 3
    for line in lines:
        shares = [float(x) for x in re.findall(r"[█░]{10} (\d\.\d+)", line)]
        assert len(shares) == 2
        assert sum(shares) == pytest.approx(1, abs=0.002)


def test_many_specialists_are_summed_up(tmp_path):
    names = tuple("abcdef")
    path = tmp_path / "answer.json"
    path.write_bytes(receipt(tmp_path / "log", of(specialists=names, ids=names)))
    assert "3 others 0." in run("show", path)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page(path: Path) -> tuple[Page, str]:
    """The page of a receipt, read."""
    html = path.with_suffix(".html")
    run("show", path, "--html", html)
    read = Page()
    read.feed(html.read_text(encoding="utf-8"))
    return read, html.read_text(encoding="utf-8")


def test_the_page_stands_alone(file):
    read, html = page(file)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in read.tags}
    assert "http" not in html.replace("http-equiv", "")


def test_the_page_says_in_numbers_what_it_draws(file):
    read, _ = page(file)
    assert len(re.findall(r"A \d\.\d{3}, B \d\.\d{3}", read.text)) == 3


def test_the_page_has_a_language_a_title_captions_and_scopes(file):
    read, _ = page(file)
    attributes = dict(read.tags)
    assert attributes["html"]["lang"] == "en"
    assert {"title", "caption", "main", "h1"} <= set(attributes)
    assert all("scope" in given for tag, given in read.tags if tag == "th")


def test_patterns_tell_specialists_apart_and_both_themes_are_there(file):
    _, html = page(file)
    assert "prefers-color-scheme:dark" in html
    assert re.search(r"\.s0\{background:none;", html)
    assert re.search(r"\.s1\{background:repeating-linear-gradient", html)


def test_a_name_cannot_smuggle_in_a_tag(tmp_path):
    path = tmp_path / "answer.json"
    path.write_bytes(receipt(tmp_path / "log", of(model="<script>alert(1)</script>")))
    read, _ = page(path)
    assert "script" not in {tag for tag, _ in read.tags}
    assert "<script>alert(1)</script>" in read.text


@pytest.mark.slow
def test_tokens_are_shown_as_text_with_a_models_tokenizer(file):
    assert "'" in run("show", file, "--model", "smollm2-135m")
