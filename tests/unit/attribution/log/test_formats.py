"""Notes, keys, checkpoints and hashes, against examples that others published."""

from __future__ import annotations

import base64

import pytest

from sharedllm.attribution.log import Checkpoint, LogKey, Proof, leaf_hash, sign_note, verify_note
from sharedllm.attribution.log.hashing import root
from sharedllm.attribution.log.tiles import Tree
from sharedllm.errors import BadLog
from tests.unit.attribution.log.naive import NAME, PRIVATE, naive_root

# golang.org/x/mod/sumdb/note
KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6"
    "KE6RyyBwJnAM=\n"
).encode()
# the reference leaves and roots of Certificate Transparency
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_the_reference_leaves(size):
    tree, _ = Tree().extended([leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES[:size]])
    assert root(size, lambda level, index: tree.node(level, index, _no_tile)).hex() == ROOTS[size - 1]


def _no_tile(level: int, index: int) -> bytes:
    raise AssertionError("no tile is full")


def test_a_note_of_another_implementation_verifies():
    assert verify_note(NOTE, LogKey.parse(KEY)) == TEXT


def test_a_key_is_written_as_it_was_read():
    assert str(LogKey.parse(KEY)) == KEY


@pytest.mark.parametrize("text", ["", "a+b", KEY[:-4], KEY.replace("c74f20a3", "c74f20a4"), "x y+0+AAAA"])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(BadLog, match="no log key"):
        LogKey.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\x07"])
def test_a_name_that_no_note_can_carry_is_refused(name):
    with pytest.raises(BadLog, match="key name"):
        LogKey(name, bytes(32))


def test_a_changed_note_is_refused():
    with pytest.raises(BadLog, match="was changed"):
        verify_note(NOTE.replace(b"answer", b"Answer"), LogKey.parse(KEY))


def test_a_note_of_somebody_else_is_refused():
    with pytest.raises(BadLog, match="not signed by sharedllm/test"):
        verify_note(NOTE, LogKey(NAME, bytes(32)))


def test_other_signers_are_passed_over():
    key = LogKey.parse(KEY)
    other = sign_note(TEXT, NAME, PRIVATE).decode().rpartition("\n\n")[2]
    assert verify_note(NOTE.replace(b"\n\n", b"\n\n" + other.encode()), key) == TEXT


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"\xff\n\n\xe2\x80\x94 a AAAA\n",
        b"text\n\n- a AAAAAAAA\n",
        b"a\tb\n\n\xe2\x80\x94 a AAAAAAAA\n",
        b"x" * 70_000,
        b"text\n\n" + b"\xe2\x80\x94 a AAAAAAAA\n" * 65,
    ],
)
def test_what_is_no_note_is_refused(note):
    with pytest.raises(BadLog):
        verify_note(note, LogKey.parse(KEY))


def test_a_text_without_a_last_newline_is_not_signed():
    with pytest.raises(BadLog, match="ends in a newline"):
        sign_note("text", NAME, PRIVATE)


def test_a_checkpoint_is_three_lines_and_a_signature(opened):
    note = opened().note.decode()
    assert note.split("\n")[:4] == [NAME, "0", base64.b64encode(naive_root([])).decode(), ""]
    assert note.split("\n")[4].startswith(f"— {NAME} ")


@pytest.mark.parametrize(
    "text",
    [
        f"{NAME}\n1\n",
        f"{NAME}\n01\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n-1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n99999999999999999999\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        f"sharedllm/other\n1\n{base64.b64encode(bytes(32)).decode()}\n",
    ],
)
def test_what_is_no_checkpoint_of_this_log_is_refused(text, opened):
    with pytest.raises(BadLog):
        Checkpoint.verified(sign_note(text, NAME, PRIVATE), opened().key)


@pytest.mark.parametrize(
    "text", ["", "c2sp.org/tlog-proof@v1\nindex x\n\nnote", "c2sp.org/tlog-proof@v1\nindex 0\nAA\n\nnote"]
)
def test_what_is_no_proof_is_refused(text):
    with pytest.raises(BadLog):
        Proof.parse(text)


def test_a_proof_of_endless_hashes_is_refused():
    line = base64.b64encode(bytes(32)).decode() + "\n"
    with pytest.raises(BadLog, match="at most"):
        Proof.parse(f"c2sp.org/tlog-proof@v1\nindex 0\n{line * 64}\nnote")
