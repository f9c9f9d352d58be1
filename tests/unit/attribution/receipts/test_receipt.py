"""A receipt verifies from its bytes alone, and each thing that can be wrong with it has a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.attribution.log import LogKey, public_bytes
from sharedllm.attribution.receipts import BILLION, Chain, acknowledged, log_name, verify
from sharedllm.attribution.receipts.receipt import node_message
from sharedllm.errors import BadReceipt
from sharedllm.store import canonical_json
from tests.unit.attribution.receipts.making import (
    CLIENT,
    CLIENT_KEY,
    HEAD,
    NODE,
    PROMPT,
    log_key,
    of,
    receipt,
    records,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return receipt(tmp_path_factory.mktemp("receipt") / "log")


def changed(data: bytes, change: Callable[[dict[str, Any]], object], *, signed: bool = False) -> bytes:
    """The receipt after ``change``; with ``signed``, signed again by its node."""
    whole = json.loads(data)
    change(whole)
    if signed:
        whole["signature"] = NODE.sign(node_message(whole)).hex()
    return canonical_json(whole)


def test_a_good_receipt_gives_the_answer_back(good):
    answer = verify(good, log_key=log_key(), client_key=CLIENT_KEY, prompt=PROMPT).answer
    assert answer.head == HEAD
    assert [token.entry.token for token in answer.tokens] == [11, 12, 13]
    assert answer.finish_reason == "stop"


def test_responsibilities_add_up_to_a_billion(good):
    assert {sum(token.shares) for token in verify(good).answer.tokens} == {BILLION}


def test_ledgers_close_exactly(good):
    for token in verify(good).answer.tokens:
        entry = token.entry
        assert sum(entry.evidence) + sum(entry.prior) + entry.diversity + entry.remainder == entry.joint


def test_a_log_key_may_be_given_in_its_own_form(good):
    public = public_bytes(NODE)
    verify(good, log_key=str(LogKey(log_name(public), public)))


def test_spaces_between_values_mean_nothing(good):
    verify(json.dumps(json.loads(good), indent=2).encode())


def test_the_sentences_say_whose_word_is_taken(good):
    assert any("its key" in sentence for sentence in verify(good).leaves_open)
    assert not any("its key" in sentence for sentence in verify(good, log_key=log_key()).leaves_open)


def test_the_sentences_never_claim_honesty_or_freshness(good):
    open_ = " ".join(verify(good, log_key=log_key()).leaves_open)
    assert "invents consistent numbers" in open_
    assert "own word" in open_


def test_a_receipt_without_its_salt_still_verifies(good):
    verify(changed(good, lambda whole: whole.update(salt=None)))


def test_without_its_salt_no_prompt_can_be_compared(good):
    with pytest.raises(BadReceipt, match="salt was taken out"):
        verify(changed(good, lambda whole: whole.update(salt=None)), prompt=PROMPT)


def test_a_client_can_acknowledge_its_receipt(good):
    verified = verify(acknowledged(good, CLIENT))
    assert verified.acknowledged
    assert "The client countersigned it." in verified.proves


def test_somebody_else_cannot_acknowledge_it(good):
    with pytest.raises(BadReceipt, match="issued to"):
        acknowledged(good, Ed25519PrivateKey.generate())


def test_an_acknowledgement_is_of_one_receipt(good, tmp_path):
    other = json.loads(acknowledged(receipt(tmp_path / "log", of(request_id="chatcmpl-2")), CLIENT))
    with pytest.raises(BadReceipt, match="client's signature"):
        verify(changed(good, lambda whole: whole.update(acknowledgement=other["acknowledgement"])))


def test_an_interrupted_answer_verifies_and_says_so(tmp_path):
    verified = verify(receipt(tmp_path / "log", end=False))
    assert verified.answer.finish_reason is None
    assert any("no end of it" in sentence for sentence in verified.leaves_open)


def test_an_answer_of_one_specialist_is_all_its_own(tmp_path):
    head = of(specialists=("base",), ids=("1" * 64,))
    verified = verify(receipt(tmp_path / "log", head))
    assert {token.shares for token in verified.answer.tokens} == {(BILLION,)}


def test_a_long_answer_takes_several_entries_of_the_log():
    logged = records(tokens=600)
    assert len(logged) > 4
    assert max(map(len, logged)) <= 65_535


def test_the_prompt_is_in_no_record_in_clear():
    assert str(list(PROMPT))[1:-1].encode() not in b"".join(records())


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("schema", lambda w: w.update(schema="sharedllm-receipt/2")),
        ("keys", lambda w: w.update(more=1)),
        ("list of records", lambda w: w.update(records=[])),
        ("was changed, or a record was left out", lambda w: w["records"].pop(1)),
        ("was changed, or a record was left out", lambda w: w["records"][0].update(model="other")),
        ("begins at token", lambda w: w["records"][2].update(first=2)),
        ("The end counts", lambda w: w["records"][3].update(tokens=2)),
        ("not entry", lambda w: w["records"][3].update(finish_reason="length")),
        ("not entry", lambda w: w["records"].pop()),
        ("comes after the end", lambda w: w["records"].append(w["records"][3])),
        ("does not add up", lambda w: w["records"][1]["rows"][0].__setitem__(7, -1)),
        ("do not add up to", lambda w: w["records"][1]["rows"][0].__setitem__(8, [1, 2])),
        ("responsibility of drama", lambda w: w["records"][1]["rows"][0][8].reverse()),
        ("nine columns", lambda w: w["records"][1]["rows"][0].pop()),
        ("no token id", lambda w: w["records"][1]["rows"][0].__setitem__(0, -5)),
        ("each named once", lambda w: w["records"][0].update(specialists=["a", "a"])),
        ("can't be shown", lambda w: w["records"][0].update(request_id="\x1b[2J")),
        ("64 hex digits", lambda w: w["records"][0].update(client_key="x")),
        ("other keys", lambda w: w["records"][0].update(more=1)),
        ("lacks kind", lambda w: w["records"][2].pop("kind")),
        ("neither tokens nor an end", lambda w: w["records"][2].update(kind="head")),
        ("first record", lambda w: w["records"][0].update(kind="end")),
        ("no log proof", lambda w: w.update(proof="")),
        ("proof is text", lambda w: w.update(proof=1)),
        ("does not fit the note", lambda w: w.update(proof=re.sub(r"\n10\n", "\n11\n", w["proof"]))),
        ("node's signature", lambda w: w.update(signature="0" * 128)),
        ("64 hex digits in small letters", lambda w: w.update(node=w["node"].upper())),
        ("not signed by", lambda w: w.update(node=CLIENT_KEY)),
        ("whose hash was logged", lambda w: w.update(salt="0" * 32)),
        ("acknowledgement is", lambda w: w.update(acknowledgement=1)),
        ("another client", lambda w: w.update(acknowledgement={"client_key": "", "signature": ""})),
    ],
)
def test_what_is_wrong_is_named(good, sentence, change):
    with pytest.raises(BadReceipt, match=sentence):
        verify(changed(good, change))


def test_a_node_that_rewrites_its_answer_is_refused_by_the_log(good):
    def lie(whole: dict[str, Any]) -> None:
        whole["records"][3]["finish_reason"] = "length"

    with pytest.raises(BadReceipt, match="log does not bear"):
        verify(changed(good, lie, signed=True))


def test_a_receipt_of_another_log_is_refused(good):
    with pytest.raises(BadReceipt, match="not of the one that you expect"):
        verify(good, log_key=CLIENT_KEY)


def test_a_log_key_that_is_none_is_refused(good):
    with pytest.raises(BadReceipt, match="no log key"):
        verify(good, log_key="abc")


def test_a_receipt_of_another_client_is_refused(good):
    with pytest.raises(BadReceipt, match="issued to"):
        verify(good, client_key="0" * 64)


def test_another_prompt_is_refused(good):
    with pytest.raises(BadReceipt, match="another prompt"):
        verify(good, prompt=[1])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"schema":1.5}',
        b'{"a":1,"a":1}',
        b"[" * 100_000,
        b'{"a":NaN}',
        b'"\\ud800"',
    ],
)
def test_what_is_no_receipt_is_refused(data):
    with pytest.raises(BadReceipt):
        verify(data)


def test_an_endless_receipt_is_refused_before_it_is_read():
    with pytest.raises(BadReceipt, match="at most"):
        verify(bytes((1 << 26) + 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"request_id": "\n"},
        {"model": "m" * 300},
        {"specialists": ()},
        {"ids": ("1",)},
        {"specialists": tuple(map(str, range(600))), "ids": ("1",) * 600},
    ],
)
def test_a_head_that_no_receipt_could_show_is_refused(fields):
    with pytest.raises(BadReceipt):
        of(**fields)


def test_names_that_fill_an_entry_of_the_log_are_refused():
    many = tuple(f"{i:0200}" for i in range(400))
    with pytest.raises(BadReceipt, match="name fewer"):
        Chain(of(specialists=many, ids=many))
