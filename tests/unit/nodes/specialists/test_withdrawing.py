"""Who published a specialist can take it back, nobody else can, and what it alone needed is forgotten."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.errors import BadManifest, UnknownName
from sharedllm.nodes.coordinator import CoordinatorClient, RequestRefused
from sharedllm.nodes.coordinator.library import NotOnShelf, Shelf, ShelfRefused
from sharedllm.nodes.specialists import fetch, listing, offer, withdraw
from sharedllm.store import Blobs, specialists
from sharedllm.store.specialists import Signed


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf", 10**9)


def filled(shelf: Shelf, signed: Signed) -> None:
    """Put a manifest and its blobs on a shelf."""
    shelf.announce(signed)
    for sha256 in signed.blobs:
        assert shelf.blobs.put_file(Blobs().path(sha256)) == sha256


def blobs(shelf: Shelf) -> set[str]:
    return {path.name for path in shelf.blobs.root.glob("??/*")}


def test_what_is_withdrawn_is_listed_no_more(
    client: CoordinatorClient, signed: Signed, private: Ed25519PrivateKey
) -> None:
    offer(client, signed)
    assert withdraw(client, signed.name, private) == [signed.id]
    assert signed.name not in [entry["name"] for entry in listing(client)]
    with pytest.raises(UnknownName):
        fetch(client, signed.id)


def test_every_version_of_a_name_is_withdrawn(
    client: CoordinatorClient, signed: Signed, private: Ed25519PrivateKey
) -> None:
    newer = specialists.sign(dataclasses.replace(signed.body, provenance={"version": 2}), private)
    for version in (signed, newer):
        offer(client, version)
    assert withdraw(client, signed.name, private) == [newer.id, signed.id]


def test_what_was_withdrawn_can_not_be_offered_again_by_whoever_still_has_it(
    client: CoordinatorClient, signed: Signed, private: Ed25519PrivateKey
) -> None:
    offer(client, signed)
    withdraw(client, signed.id, private)
    with pytest.raises(RequestRefused, match="was withdrawn by who published it"):
        offer(client, signed)


def test_nobody_else_can_withdraw_it(client: CoordinatorClient, signed: Signed) -> None:
    offer(client, signed)
    with pytest.raises(BadManifest, match="only who published it"):
        withdraw(client, signed.name, Ed25519PrivateKey.generate())
    assert signed.name in [entry["name"] for entry in listing(client)]


def test_another_signature_of_the_same_manifest_withdraws_nothing(shelf: Shelf, signed: Signed) -> None:
    shelf.announce(signed)
    other = Ed25519PrivateKey.generate()
    mine = specialists.withdraw(specialists.sign(signed.body, other), other)
    with pytest.raises(ShelfRefused, match="only they can withdraw it"):
        shelf.withdraw(mine)
    assert shelf.find(signed.id) == signed


def test_what_nobody_published_can_not_be_withdrawn(
    client: CoordinatorClient, private: Ed25519PrivateKey
) -> None:
    with pytest.raises(UnknownName):
        withdraw(client, "nobody", private)


def test_blobs_that_another_manifest_names_stay(
    shelf: Shelf, signed: Signed, adapted: Signed, private: Ed25519PrivateKey
) -> None:
    filled(shelf, signed)
    filled(shelf, adapted)
    assert adapted.body.adapter is not None
    shelf.withdraw(specialists.withdraw(adapted, private))
    assert blobs(shelf) == set(signed.blobs)
    shelf.withdraw(specialists.withdraw(signed, private))
    assert not blobs(shelf)


def test_a_withdrawal_outlives_a_restart_and_a_kill_in_between(
    shelf: Shelf, signed: Signed, private: Ed25519PrivateKey
) -> None:
    filled(shelf, signed)
    manifest = shelf.folder / "manifests" / f"{signed.id}.json"
    data = manifest.read_bytes()
    shelf.withdraw(specialists.withdraw(signed, private))
    manifest.write_bytes(data)
    shelf.blobs.put_file(Blobs().path(signed.body.weights_sha256))  # as if it had been killed by then
    again = Shelf(shelf.folder, 10**9)
    with pytest.raises(NotOnShelf):
        again.find(signed.id)
    with pytest.raises(ShelfRefused, match="was withdrawn"):
        again.announce(signed)
    assert (blobs(again), manifest.exists()) == (set(), False)


def test_what_arrives_while_it_is_withdrawn_is_not_kept(
    shelf: Shelf, signed: Signed, private: Ed25519PrivateKey
) -> None:
    shelf.announce(signed)
    weights, size = signed.body.weights_sha256, signed.body.sizes["weights"]
    shelf.promise(weights, size)
    shelf.withdraw(specialists.withdraw(signed, private))
    shelf.blobs.put_file(Blobs().path(weights))
    shelf.settle(weights)
    assert not blobs(shelf)
