"""Two federations never share a state folder or a port, and the second says so kindly."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sharedllm.errors import WriteFailed
from sharedllm.nodes.local import AlreadyUp, addresses, lan_address, lock, read_note
from sharedllm.nodes.operations import PortTaken


def test_a_second_federation_is_told_where_the_first_one_serves(tmp_path: Path) -> None:
    with lock.holding(tmp_path):
        lock.note(tmp_path, page="http://127.0.0.1:8421", pid=os.getpid())
        with pytest.raises(
            AlreadyUp, match=rf"page is at http://127\.0\.0\.1:8421, its process is {os.getpid()}"
        ):
            lock.holding(tmp_path).__enter__()


def test_a_second_federation_is_told_that_the_first_one_is_still_starting(tmp_path: Path) -> None:
    with lock.holding(tmp_path), pytest.raises(AlreadyUp, match="it is still starting"):
        lock.holding(tmp_path).__enter__()


def test_a_federation_that_ended_leaves_its_folder_free(tmp_path: Path) -> None:
    with lock.holding(tmp_path):
        lock.note(tmp_path, page="http://127.0.0.1:8421", pid=1)
    assert read_note(tmp_path) == {}
    with lock.holding(tmp_path):
        pass


def test_a_note_left_by_a_killed_federation_is_not_believed(tmp_path: Path) -> None:
    lock.note(tmp_path, page="http://127.0.0.1:8421", pid=1)
    with lock.holding(tmp_path):
        assert read_note(tmp_path) == {}


def test_a_folder_that_can_not_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteFailed, match="give another with --state"):
        lock.holding(tmp_path / "file" / "state").__enter__()


def test_a_taken_port_is_named_with_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"Port {port} \(the page\) .* Give another with --port\."):
            addresses.refuse_taken("127.0.0.1", port, "--port", "the page")


def test_port_0_is_never_taken() -> None:
    addresses.refuse_taken("127.0.0.1", 0, "--port", "the page")


def test_the_next_free_port_is_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert addresses.free_port("127.0.0.1", port, set()) > port


def test_a_port_that_was_given_away_already_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    assert addresses.free_port("127.0.0.1", port, {port}) > port


def test_the_address_for_others_is_never_loopback() -> None:
    address = lan_address()
    assert address is None or not address.startswith("127.")


@pytest.mark.parametrize("url", ["https://127.0.0.1:8420", "http://[::1]:8420/"])
def test_the_port_is_read_off_a_url(url: str) -> None:
    assert addresses.port_of(url) == 8420
