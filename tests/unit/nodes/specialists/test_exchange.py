"""From one store through a real coordinator into another: by name or hash; changed it is refused."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import store
from sharedllm.errors import BadManifest, BadModelFile, UnknownName
from sharedllm.nodes.coordinator import CoordinatorClient, RequestRefused
from sharedllm.nodes.errors import CoordinatorAway
from sharedllm.nodes.specialists import exchange, fetch, fetch_model, listing, offer
from sharedllm.store import Blobs, specialists
from sharedllm.store.specialists import Signed
from tests.unit.nodes.coordinator.conftest import Served

Move = Callable[[str], None]
TOKENS = torch.arange(8)[None]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_FIRST_WAIT_S", 0.001)


@torch.no_grad()
def logits(signed: Signed) -> torch.Tensor:
    out: torch.Tensor = specialists.live(signed).model(TOKENS)
    return out


def test_what_one_publishes_another_makes_live(client: CoordinatorClient, signed: Signed, move: Move) -> None:
    expected = logits(signed)
    offer(client, signed)
    move("second")
    assert torch.equal(logits(fetch(client, signed.name)), expected)


def test_it_is_known_by_its_name_from_then_on(client: CoordinatorClient, signed: Signed, move: Move) -> None:
    offer(client, signed)
    move("second")
    fetch(client, signed.id)
    assert specialists.find(signed.name) == signed


def test_it_can_be_called_otherwise(client: CoordinatorClient, signed: Signed, move: Move) -> None:
    offer(client, signed)
    move("second")
    fetch(client, signed.name, known_as="mine")
    assert specialists.find("mine") == signed


def test_publishing_twice_is_no_error(client: CoordinatorClient, signed: Signed) -> None:
    offer(client, signed)
    offer(client, signed)
    assert {e["name"]: e["missing"] for e in listing(client)}[signed.name] == []


def test_the_list_says_what_is_missing(client: CoordinatorClient, adapted: Signed) -> None:
    body = adapted.body
    offer(client, adapted, leave_out={body.weights_sha256, body.tokenizer_sha256})
    entry = next(e for e in listing(client) if e["id"] == adapted.id)
    assert body.weights_sha256 in entry["missing"]
    assert body.adapter is not None
    assert body.adapter.sha256 not in entry["missing"]


def test_an_adapter_whose_base_is_here_needs_no_more(
    client: CoordinatorClient, adapted: Signed, signed: Signed, move: Move
) -> None:
    expected = logits(adapted)
    offer(client, signed)
    offer(client, adapted)
    move("second")
    fetch(client, signed.name)
    assert torch.equal(logits(fetch(client, adapted.name)), expected)


def test_a_base_that_is_nowhere_is_named(client: CoordinatorClient, adapted: Signed, move: Move) -> None:
    body = adapted.body
    offer(client, adapted, leave_out={body.weights_sha256, body.tokenizer_sha256})
    move("second")
    with pytest.raises(
        BadModelFile, match="neither here nor in the library; run `sharedllm model fetch tiny`"
    ):
        fetch(client, adapted.name)


@pytest.mark.parametrize("name", ["nobody", "0" * 64])
def test_what_nobody_published_is_unknown(client: CoordinatorClient, move: Move, name: str) -> None:
    with pytest.raises(UnknownName, match="Nobody published a specialist"):
        fetch(client, name)


def test_a_name_belongs_to_who_was_first(client: CoordinatorClient, signed: Signed) -> None:
    offer(client, signed)
    with pytest.raises(RequestRefused, match="who was first; publish it under another name"):
        offer(client, specialists.sign(signed.body, Ed25519PrivateKey.generate()))


def test_anothers_specialist_does_not_take_the_place_of_mine(
    client: CoordinatorClient, signed: Signed, move: Move
) -> None:
    offer(client, signed)
    move("second")
    specialists.publish(signed.name, specialists.sign(signed.body, Ed25519PrivateKey.generate()))
    with pytest.raises(BadManifest, match="give it another name with --as"):
        fetch(client, signed.name)


def test_a_signer_that_is_not_accepted_is_refused(
    client: CoordinatorClient, signed: Signed, move: Move
) -> None:
    offer(client, signed)
    move("second")
    with pytest.raises(BadManifest, match="none of the keys that you accept"):
        fetch(client, signed.name, signers=["0" * 64])
    assert signed.name not in specialists.names()


def test_a_model_comes_by_the_hash_of_its_weights(
    client: CoordinatorClient, signed: Signed, move: Move
) -> None:
    offer(client, signed)
    move("second")
    fetch_model(client, signed.body.weights_sha256)
    assert store.with_weights(signed.body.weights_sha256) == signed.body


def test_weights_that_nobody_published_are_unknown(client: CoordinatorClient, move: Move) -> None:
    with pytest.raises(UnknownName, match="Nobody published a model with the weights aaaaaaaaaaaa"):
        fetch_model(client, "a" * 64)


@pytest.mark.parametrize("at", [0, 70_000, -1])
def test_a_wrong_byte_on_the_shelf_is_refused_and_nothing_kept(
    served: Served, client: CoordinatorClient, signed: Signed, move: Move, at: int
) -> None:
    offer(client, signed)
    weights = signed.body.weights_sha256
    shelved = Blobs(served.state / "library" / "blobs").path(weights)
    data = bytearray(shelved.read_bytes())
    data[at] ^= 1
    shelved.write_bytes(bytes(data))
    move("second")
    with pytest.raises(BadModelFile, match="thrown away"):
        fetch(client, signed.name)
    assert (Blobs().has(weights), Blobs().arrived_bytes(weights)) == (False, 0)
    assert signed.name not in specialists.names()


def test_a_blob_cut_short_on_the_shelf_is_given_up(
    served: Served, client: CoordinatorClient, signed: Signed, move: Move
) -> None:
    offer(client, signed)
    shelved = Blobs(served.state / "library" / "blobs").path(signed.body.weights_sha256)
    shelved.write_bytes(shelved.read_bytes()[:1000])
    move("second")
    with pytest.raises((RequestRefused, CoordinatorAway)):
        fetch(client, signed.name)
    assert not Blobs().has(signed.body.weights_sha256)


def test_a_damaged_blob_is_not_published(client: CoordinatorClient, signed: Signed) -> None:
    path = Blobs().path(signed.body.weights_sha256)
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    with pytest.raises(BadModelFile, match="is damaged"):
        offer(client, signed)


def test_two_that_fetch_the_same_at_once_both_have_it(
    client: CoordinatorClient, signed: Signed, move: Move
) -> None:
    offer(client, signed)
    move("second")
    found: list[Signed] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(client, signed.name))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [signed] * 3


def test_the_library_is_there_after_a_restart(
    client: CoordinatorClient, signed: Signed, move: Move, served: Served
) -> None:
    from sharedllm.nodes.coordinator.library import Shelf

    offer(client, signed)
    assert Shelf(served.state / "library", 1).find(signed.name) == signed


def test_a_worker_that_lacks_a_model_gets_it_by_its_hash(
    served: Served, client: CoordinatorClient, signed: Signed, move: Move
) -> None:
    from sharedllm.nodes.worker import child

    offer(client, signed)
    move("second")
    folder = client.identity.folder
    (folder / "coordinator.url").write_text(served.url)
    stage = child.find("a name that only they know", signed.body.weights_sha256, 1, 2, state=folder)
    assert (stage.start, stage.stop) == (1, 2)


class Odd:
    """A library that says ``parts`` to everything."""

    url = "https://odd"

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts = parts

    @contextlib.contextmanager
    def streaming(self, method: str, path: str, **more: object) -> Iterator[httpx.Response]:
        yield httpx.Response(200, content=self.parts, request=httpx.Request(method, self.url + path))


def test_an_answer_without_an_end_is_not_read_to_it(signed: Signed) -> None:
    parts = itertools.repeat(b"x" * 4096)
    with pytest.raises(RequestRefused, match=r"answers /v1/specialists/.* without an end"):
        offer(Odd(parts), signed)  # type: ignore[arg-type]


@pytest.mark.parametrize("said", [b"", b"[]", b"{}", b"<html>"])
def test_what_is_no_library_is_said_to_be_none(said: bytes) -> None:
    with pytest.raises(RequestRefused, match="is no library: it does not say specialists"):
        listing(Odd(iter([said])))  # type: ignore[arg-type]
