"""Talking through the API from a terminal: as it comes, stoppable, and refusals in the API's own words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sharedllm.cli.talk import api as talk_api
from sharedllm.cli.talk import chat, generate
from sharedllm.cli.talk.api import ApiFailed, connect
from sharedllm.nodes.local import lock


def say(api: Any, *lines: str, options: tuple[str, ...] = ()) -> Result:
    result = CliRunner().invoke(
        chat.app, ["--url", api.url, *options], input="".join(f"{line}\n" for line in lines)
    )
    assert result.exit_code == 0, result.output
    return result


def test_generate_prints_the_text_and_nothing_else(api: Any) -> None:
    assert CliRunner().invoke(generate.app, ["Say hello", "--url", api.url]).stdout == "Hello, you\n"
    assert api.asked[0] == {
        "model": "tiny",
        "prompt": "Say hello",
        "stream": True,
        "max_tokens": 128,
        "temperature": 0.0,
        "top_p": 1.0,
    }


def test_generate_answers_with_the_chat_template(api: Any) -> None:
    CliRunner().invoke(
        generate.app, ["Hi", "--chat", "--seed", "3", "--stop", "x", "--url", api.url + "/v1/"]
    )
    assert api.asked[0]["messages"] == [{"role": "user", "content": "Hi"}]
    assert (api.asked[0]["seed"], api.asked[0]["stop"]) == (3, ["x"])


def test_generate_reads_a_long_prompt_from_stdin(api: Any) -> None:
    CliRunner().invoke(generate.app, ["-", "--url", api.url], input="a\nb\n")
    assert api.asked[0]["prompt"] == "a\nb\n"


def test_generate_keeps_the_receipt_byte_for_byte_and_binds_it_to_the_users_key(
    api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHAREDLLM_STATE", str(tmp_path / "state"))
    api.receipt = b'{"schema":"a receipt"}'
    file = tmp_path / "answer.json"
    for _ in range(2):
        said = CliRunner().invoke(generate.app, ["Say hello", "--url", api.url, "--receipt", str(file)])
        assert said.stdout == "Hello, you\n"
    assert file.read_bytes() == api.receipt
    first, second = api.client_keys
    assert first == second
    assert len(bytes.fromhex(first)) == 32


def test_generate_without_a_receipt_names_no_key(api: Any) -> None:
    CliRunner().invoke(generate.app, ["Say hello", "--url", api.url])
    assert api.client_keys == [None]


def test_an_api_without_receipts_is_named(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAREDLLM_STATE", str(tmp_path / "state"))
    asked = ["Say hello", "--url", api.url, "--receipt", str(tmp_path / "answer.json")]
    said = CliRunner().invoke(generate.app, asked)
    assert isinstance(said.exception, ApiFailed)
    assert "gave no receipt" in str(said.exception)


def test_a_conversation_is_remembered(api: Any) -> None:
    say(api, "Hi", "And?", options=("--system", "Be brief."))
    assert [message["content"] for message in api.asked[1]["messages"]] == [
        "Be brief.",
        "Hi",
        "Hello, you",
        "And?",
    ]


def test_a_new_conversation_is_empty(api: Any) -> None:
    say(api, "Hi", "/new", "And?")
    assert [message["content"] for message in api.asked[1]["messages"]] == ["And?"]


def test_quitting_asks_nothing_more(api: Any) -> None:
    say(api, "/quit", "Hi")
    assert api.asked == []


def test_help_lists_the_commands_and_an_unknown_one_is_not_sent(api: Any) -> None:
    said = say(api, "/help", "/hlep").stdout
    assert "/new" in said
    assert "There is no command /hlep" in said
    assert api.asked == []


def test_an_interrupt_stops_the_answer_and_not_the_program(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def interrupted(self: Any, messages: Any, **more: Any) -> Iterator[str]:
        try:
            yield "Once"
            raise KeyboardInterrupt
        finally:
            closed.append(list(messages))

    monkeypatch.setattr(talk_api.Api, "chat", interrupted)
    said = say(api, "Hi", "Go on").stdout
    assert said.count("Once\n(stopped)") == 2
    assert [message["content"] for message in closed[1]] == ["Hi", "Once", "Go on"]


def test_a_refused_question_is_forgotten_and_the_program_goes_on(api: Any) -> None:
    api.refusal = (429, "Every place is taken.", {"Retry-After": "7"})
    result = CliRunner().invoke(chat.app, ["--url", api.url], input="Hi\nAgain\n")
    assert "Every place is taken. Try again in 7 s." in result.output
    assert [message["content"] for message in api.asked[1]["messages"]] == ["Again"]


def test_a_stream_that_breaks_off_is_an_error(api: Any) -> None:
    api.breaks_off = True
    with pytest.raises(ApiFailed, match="ended before the answer did"):
        list(connect(api.url, None, None).complete("x"))


def test_an_error_in_the_middle_of_a_stream_is_said_in_its_own_words(api: Any) -> None:
    api.breaks_off = {"error": {"message": "Layers 10 to 19 have no home."}}
    with pytest.raises(ApiFailed, match=r"^Layers 10 to 19 have no home\.$"):
        list(connect(api.url, None, None).complete("x"))


def test_what_a_model_says_moves_no_cursor(api: Any) -> None:
    api.pieces = ["\x1b[2J", "a\x07\tb\n", "\x9b1m"]
    assert "".join(connect(api.url, None, None).complete("x")) == "[2Ja\tb\n1m"


def test_an_answer_without_an_end_is_not_read_to_it(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk_api, "_MAX_ANSWER", 8)
    with pytest.raises(ApiFailed, match="without an end"):
        connect(api.url, None, None)


def test_nobody_there_is_a_sentence_that_says_how_to_start(taken_port: int) -> None:
    url = f"http://127.0.0.1:{taken_port + 1 if taken_port < 65535 else 1}"
    with pytest.raises(ApiFailed, match=r"Nothing answers at .* `sharedllm up`"):
        connect(url, None, None)


@pytest.mark.parametrize("url", ["", "nonsense", "http://[", "ftp://127.0.0.1"])
def test_an_address_that_is_none_is_a_sentence(url: str) -> None:
    with pytest.raises(ApiFailed, match="Nothing answers at"):
        connect(url, None, None)


def test_without_an_address_the_federation_of_this_machine_is_asked(
    api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHAREDLLM_STATE", str(tmp_path))
    lock.note(tmp_path / "up", page=api.url, pid=1)
    assert connect(None, None, None).url == api.url


def test_a_key_is_sent_from_its_file_and_never_shown(api: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k-123\n")
    connected = connect(api.url, None, tmp_path / "key")
    list(connected.complete("x"))
    assert api.keys == ["Bearer k-123"]
    assert "k-123" not in repr(connected)
