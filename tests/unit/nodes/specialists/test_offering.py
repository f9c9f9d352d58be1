"""What a primary serves gets to the library by itself, and nothing that goes wrong there stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import store
from sharedllm.nodes import specialists as library
from sharedllm.nodes.coordinator import CoordinatorClient
from sharedllm.nodes.errors import CoordinatorAway
from sharedllm.nodes.primary.federated import offering
from sharedllm.nodes.primary.federated.lineup import Lineup
from sharedllm.nodes.primary.federated.offering import Offering
from sharedllm.store.specialists import Signed

DEADLINE_S = 60.0


def offer(
    client: CoordinatorClient, *served: Signed, model: str = "toy", busy: Callable[[], bool] = lambda: False
) -> Offering:
    """What a primary that serves these did, when it is done."""
    base = store.resolve("toy") if model == "toy" else served[0].body
    made = Offering(client, model, Lineup(base, {"toy": None, **{s.name: s for s in served}}), busy)
    made.start()
    made.join(DEADLINE_S)
    assert not made.is_alive()
    return made


def test_another_node_gets_what_a_primary_serves(
    client: CoordinatorClient, signed: Signed, move: Callable[[str], None]
) -> None:
    assert offer(client, signed).offered == [signed.name]
    move("second")
    assert library.fetch(client, signed.name) == signed
    assert (
        library.fetch_model(client, signed.body.weights_sha256).weights_sha256 == signed.body.weights_sha256
    )


def test_of_an_adapter_its_own_blob_alone_is_sent(client: CoordinatorClient, adapted: Signed) -> None:
    assert offer(client, adapted).offered == [adapted.name]
    (entry,) = [entry for entry in library.listing(client) if entry["name"] == adapted.name]
    assert adapted.body.adapter is not None
    assert adapted.body.weights_sha256 in entry["missing"]
    assert adapted.body.adapter.sha256 not in entry["missing"]


def test_what_the_library_refuses_is_said_and_the_rest_is_offered(
    client: CoordinatorClient, signed: Signed, adapted: Signed, private: Ed25519PrivateKey
) -> None:
    library.offer(client, signed)
    library.withdraw(client, signed.name, private)
    done = offer(client, signed, adapted)
    assert done.offered == [adapted.name]
    assert "was withdrawn by who published it" in done.sentences[0]


def test_damaged_bytes_are_not_offered(client: CoordinatorClient, signed: Signed) -> None:
    path = store.Blobs().path(signed.body.weights_sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    done = offer(client, signed)
    assert (done.offered, ["is damaged" in said for said in done.sentences]) == ([], [True])


def test_a_model_without_a_signed_manifest_is_not_offered_and_that_is_said(
    client: CoordinatorClient, signed: Signed
) -> None:
    (store.home() / "specialists" / f"{signed.name}.json").unlink()
    done = Offering(client, "/models/mine", Lineup(signed.body, {}), lambda: False)
    done.run()
    assert (done.offered, "`sharedllm specialist publish /models/mine`" in done.sentences[0]) == ([], True)


def test_a_base_that_was_signed_here_is_offered_too(client: CoordinatorClient, signed: Signed) -> None:
    done = Offering(client, "/models/mine", Lineup(signed.body, {}), lambda: False)
    done.run()
    assert (done.offered, done.sentences) == ([signed.name], [])


def test_a_library_that_is_away_is_tried_again(
    client: CoordinatorClient, signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, away = library.offer, [True, True]

    def sometimes(*given: object, **more: object) -> None:
        if away:
            away.pop()
            raise CoordinatorAway("It is away.")
        real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(offering, "_AGAIN_S", 0.0)
    monkeypatch.setattr(library, "offer", sometimes)
    assert offer(client, signed).offered == [signed.name]


def test_it_ends_when_the_primary_does(client: CoordinatorClient, signed: Signed) -> None:
    asked = threading.Event()

    def busy() -> bool:
        asked.set()
        return True

    made = Offering(client, "toy", Lineup(store.resolve("toy"), {"it": signed}), busy)
    made._ended.set()
    made.start()
    made.stop()
    assert (made.is_alive(), made.offered, asked.is_set()) == (False, [], True)


def test_it_is_not_in_the_way_of_those_who_end_before_it_began(client: CoordinatorClient) -> None:
    Offering(client, "toy", Lineup(store.resolve("toy"), {}), lambda: False).stop()
