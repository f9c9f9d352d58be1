"""The library's routes by hand: who may ask, what a range is, and what is refused before it is read."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sharedllm.nodes.coordinator.library import Shelf, ShelfRefused
from sharedllm.nodes.identity import client_context
from sharedllm.nodes.identity.tls import pinned_context
from sharedllm.nodes.specialists import offer
from sharedllm.store import Blobs, specialists
from sharedllm.store.blobs import BlobBusy
from sharedllm.store.specialists import Signed
from tests.unit.nodes.coordinator.conftest import Served

Ask = Callable[..., httpx.Response]
NOBODY = "a" * 64


@pytest.fixture
def ask(served: Served) -> Iterator[Ask]:
    """As a worker of the federation, or as a stranger."""
    opened: list[httpx.Client] = []

    def one(method: str, path: str, *, stranger: bool = False, **given: Any) -> httpx.Response:
        identity = served.identity("worker", "attic")
        context = pinned_context(identity.ca) if stranger else client_context(identity)
        opened.append(httpx.Client(verify=context, trust_env=False, timeout=20))
        return opened[-1].request(method, served.url + path, **given)

    yield one
    for http in opened:
        http.close()


@pytest.fixture
def shelved(served: Served, signed: Signed) -> tuple[str, bytes]:
    """A blob on the shelf: its hash and its content."""
    offer(served.client("worker", "attic"), signed)
    sha256 = signed.body.tokenizer_sha256
    return sha256, Blobs().path(sha256).read_bytes()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/specialists"),
        ("GET", "/v1/specialists/x"),
        ("PUT", f"/v1/specialists/{NOBODY}"),
        ("GET", f"/v1/models/{NOBODY}"),
        ("GET", f"/v1/blobs/{NOBODY}"),
        ("PUT", f"/v1/blobs/{NOBODY}"),
    ],
)
def test_a_stranger_is_refused_everywhere(ask: Ask, method: str, path: str) -> None:
    reply = ask(method, path, stranger=True, content=b"x" if method == "PUT" else None)
    assert reply.status_code == 403


def test_a_whole_blob(ask: Ask, shelved: tuple[str, bytes]) -> None:
    reply = ask("GET", f"/v1/blobs/{shelved[0]}")
    assert (reply.status_code, reply.content) == (200, shelved[1])


@pytest.mark.parametrize(
    ("asked", "begin", "end"), [("5-", 5, None), ("0-0", 0, 1), ("7-20", 7, 21), ("-3", -3, None)]
)
def test_a_part_of_a_blob(
    ask: Ask, shelved: tuple[str, bytes], asked: str, begin: int, end: int | None
) -> None:
    reply = ask("GET", f"/v1/blobs/{shelved[0]}", headers={"Range": f"bytes={asked}"})
    assert (reply.status_code, reply.content) == (206, shelved[1][begin:end])


def test_a_part_beyond_its_end(ask: Ask, shelved: tuple[str, bytes]) -> None:
    reply = ask("GET", f"/v1/blobs/{shelved[0]}", headers={"Range": f"bytes={len(shelved[1])}-"})
    assert reply.status_code == 416


@pytest.mark.parametrize(
    "path", ["/v1/specialists/nobody", f"/v1/models/{NOBODY}", f"/v1/blobs/{NOBODY}", "/v1/blobs/..%2fx"]
)
def test_what_is_not_here_is_404_with_a_sentence(ask: Ask, path: str) -> None:
    reply = ask("GET", path)
    assert reply.status_code == 404
    assert reply.json()["error"].endswith((".", "not answered here (Not Found)."))


def test_a_blob_that_nobody_announced_is_refused(ask: Ask) -> None:
    reply = ask("PUT", f"/v1/blobs/{hashlib.sha256(b'x').hexdigest()}", content=b"x")
    assert (reply.status_code, "publish the manifest first" in reply.json()["error"]) == (400, True)


def test_a_blob_of_another_size_than_announced_is_refused(ask: Ask, served: Served, signed: Signed) -> None:
    ask("PUT", f"/v1/specialists/{signed.id}", content=signed.to_bytes())
    reply = ask("PUT", f"/v1/blobs/{signed.body.weights_sha256}", content=b"short")
    assert "No manifest on this shelf announces 5 bytes" in reply.json()["error"]


def test_a_length_that_is_not_stated_is_refused_before_it_is_read(ask: Ask) -> None:
    reply = ask("PUT", f"/v1/blobs/{NOBODY}", content=iter([b"x"] * 10))
    assert "Content-Length says" in reply.json()["error"]


def test_a_length_beyond_what_was_announced_is_refused_before_it_is_read(
    served: Served, ask: Ask, signed: Signed
) -> None:
    ask("PUT", f"/v1/specialists/{signed.id}", content=signed.to_bytes())
    context = client_context(served.identity("worker", "attic"))
    host, _, port = served.url.removeprefix("https://").partition(":")
    path = f"/v1/blobs/{signed.body.weights_sha256}"
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="coordinator.sharedllm") as tls,
    ):
        tls.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".encode())
        assert tls.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "given", ["bytes 0-9/10", "bytes 5-2/300", "bytes 0-4/3", "bytes a-b/c", "chunks 0-4/5", "bytes 0-4/*"]
)
def test_a_range_that_does_not_fit_its_length_is_refused(ask: Ask, given: str) -> None:
    reply = ask("PUT", f"/v1/blobs/{NOBODY}", content=b"12345", headers={"Content-Range": given})
    assert (reply.status_code, "does not fit 5 bytes" in reply.json()["error"]) == (400, True)


def test_a_part_that_does_not_begin_where_the_blob_ends_is_refused(ask: Ask, signed: Signed) -> None:
    ask("PUT", f"/v1/specialists/{signed.id}", content=signed.to_bytes())
    size = signed.body.sizes["weights"]
    headers = {"Content-Range": f"bytes 10-14/{size}"}
    reply = ask("PUT", f"/v1/blobs/{signed.body.weights_sha256}", content=b"12345", headers=headers)
    assert "0 bytes of this blob are here, and yours begin at 10" in reply.json()["error"]


def test_wrong_bytes_are_refused_and_not_kept(ask: Ask, served: Served, signed: Signed) -> None:
    ask("PUT", f"/v1/specialists/{signed.id}", content=signed.to_bytes())
    weights, size = signed.body.weights_sha256, signed.body.sizes["weights"]
    reply = ask("PUT", f"/v1/blobs/{weights}", content=b"x" * size)
    assert "thrown away" in reply.json()["error"]
    assert ask("GET", f"/v1/blobs/{weights}").status_code == 404


@pytest.mark.parametrize("data", [b"", b"{}", b"x" * 4096, b"x" * 70_000])
def test_what_is_no_manifest_is_refused(ask: Ask, data: bytes) -> None:
    assert ask("PUT", f"/v1/specialists/{NOBODY}", content=data).status_code in (400, 413)


def test_a_manifest_under_another_id_is_refused(ask: Ask, signed: Signed) -> None:
    reply = ask("PUT", f"/v1/specialists/{NOBODY}", content=signed.to_bytes())
    assert "The manifest has the id" in reply.json()["error"]


def test_a_forged_manifest_is_refused(ask: Ask, signed: Signed) -> None:
    data = signed.to_bytes().replace(b"MIT", b"BSD")
    assert "forged" in ask("PUT", f"/v1/specialists/{signed.id}", content=data).json()["error"]


def test_what_does_not_fit_the_quota_is_refused(tmp_path: Path, signed: Signed) -> None:
    shelf = Shelf(tmp_path / "shelf", sum(signed.blobs.values()) - 1)
    shelf.announce(signed)
    weights, tokenizer = signed.blobs
    shelf.promise(weights, signed.blobs[weights])
    with pytest.raises(ShelfRefused, match="more do not fit"):
        shelf.promise(tokenizer, signed.blobs[tokenizer])


def test_a_promise_that_is_settled_gives_its_room_back(tmp_path: Path, signed: Signed) -> None:
    shelf = Shelf(tmp_path / "shelf", sum(signed.blobs.values()) - 1)
    shelf.announce(signed)
    weights, tokenizer = signed.blobs
    shelf.promise(weights, signed.blobs[weights])
    shelf.settle(weights)
    shelf.promise(tokenizer, signed.blobs[tokenizer])


def test_what_arrived_in_part_takes_room(tmp_path: Path, signed: Signed) -> None:
    weights, tokenizer = signed.blobs
    shelf = Shelf(tmp_path / "shelf", signed.blobs[tokenizer] + 99)
    shelf.announce(signed)
    with shelf.blobs.arriving(weights, signed.blobs[weights]) as arriving:
        arriving.write(b"x" * 100)
    with pytest.raises(ShelfRefused, match="holds 100 of"):
        shelf.promise(tokenizer, signed.blobs[tokenizer])


def test_what_arrived_in_part_does_not_take_room_from_its_own_rest(tmp_path: Path, signed: Signed) -> None:
    weights, _ = signed.blobs
    shelf = Shelf(tmp_path / "shelf", signed.blobs[weights])
    shelf.announce(signed)
    with shelf.blobs.arriving(weights, signed.blobs[weights]) as arriving:
        arriving.write(b"x" * 100)
    shelf.promise(weights, signed.blobs[weights])


def test_whoever_comes_second_with_a_blob_leaves_the_first_its_room(tmp_path: Path, signed: Signed) -> None:
    weights, tokenizer = signed.blobs
    shelf = Shelf(tmp_path / "shelf", signed.blobs[weights])
    shelf.announce(signed)
    shelf.promise(weights, signed.blobs[weights])
    with pytest.raises(BlobBusy):
        shelf.promise(weights, signed.blobs[weights])
    with pytest.raises(ShelfRefused, match="more do not fit"):
        shelf.promise(tokenizer, signed.blobs[tokenizer])


def test_a_manifest_that_was_changed_on_the_shelf_is_left_off(tmp_path: Path, signed: Signed) -> None:
    Shelf(tmp_path / "shelf", 1).announce(signed)
    path = tmp_path / "shelf" / "manifests" / f"{signed.id}.json"
    path.write_bytes(path.read_bytes().replace(b"MIT", b"BSD"))
    assert Shelf(tmp_path / "shelf", 1).listing() == []


def test_the_latest_of_a_name_is_what_it_means(tmp_path: Path, signed: Signed, private: Any) -> None:
    import dataclasses

    later = specialists.sign(dataclasses.replace(signed.body, licence="Apache-2.0"), private)
    shelf = Shelf(tmp_path / "shelf", 1)
    for one in (signed, later):
        shelf.announce(one)
    assert (shelf.find(signed.name), shelf.find(signed.id)) == (later, signed)


def test_there_is_an_end_to_manifests(
    tmp_path: Path, signed: Signed, private: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from sharedllm.nodes.coordinator.library import shelf as module

    monkeypatch.setattr(module, "_MANIFESTS", 1)
    shelf = Shelf(tmp_path / "shelf", 1)
    shelf.announce(signed)
    other = specialists.sign(dataclasses.replace(signed.body, name="other"), private)
    with pytest.raises(ShelfRefused, match="holds 1 manifests already"):
        shelf.announce(other)
