"""Connections that are cut at any byte: what travelled is kept, and the rest is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import torch

from sharedllm.nodes.coordinator import CoordinatorClient
from sharedllm.nodes.errors import CoordinatorAway
from sharedllm.nodes.specialists import exchange, fetch, offer
from sharedllm.store import Blobs, specialists
from sharedllm.store.specialists import Signed

Move = Callable[[str], None]
TOKENS = torch.arange(8)[None]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_FIRST_WAIT_S", 0.001)


@torch.no_grad()
def logits(signed: Signed) -> torch.Tensor:
    out: torch.Tensor = specialists.live(signed).model(TOKENS)
    return out


class Torn(CoordinatorClient):
    """Loses every connection after so many bytes of a blob, in either direction."""

    def __init__(self, client: CoordinatorClient, after: int) -> None:
        super().__init__(client.identity, client.url)
        self.after, self.connections = after, 0

    @contextlib.contextmanager
    def streaming(self, method: str, path: str, **given: Any) -> Iterator[httpx.Response]:
        if not path.startswith("/v1/blobs/"):
            with super().streaming(method, path, **given) as response:
                yield response
            return
        self.connections += 1
        if method == "PUT":
            given["content"] = self.torn(given["content"])
        with super().streaming(method, path, **given) as response:
            whole = response.iter_raw

            def iter_raw(chunk_size: int | None = None) -> Iterator[bytes]:
                return self.torn(whole(chunk_size))

            response.iter_raw = iter_raw  # type: ignore[method-assign]
            yield response

    def torn(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        left = self.after
        for chunk in chunks:
            if len(chunk) > left:
                yield chunk[:left]
                raise httpx.ReadError("cut")
            left -= len(chunk)
            yield chunk


@pytest.mark.parametrize("after", [30_000, 100_001])
def test_a_fetch_that_is_cut_again_and_again_arrives(
    client: CoordinatorClient, signed: Signed, move: Move, after: int
) -> None:
    expected = logits(signed)
    offer(client, signed)
    move("second")
    torn = Torn(client, after)
    assert torch.equal(logits(fetch(torn, signed.name)), expected)
    assert torn.connections > 2
    torn.close()


def test_a_fetch_that_was_given_up_goes_on_another_day(
    client: CoordinatorClient, signed: Signed, move: Move
) -> None:
    offer(client, signed)
    move("second")
    torn = Torn(client, 50_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "_persist", lambda step, here, size: step())
        with pytest.raises(CoordinatorAway):
            fetch(torn, signed.name)
    torn.close()
    assert Blobs().arrived_bytes(signed.body.weights_sha256) == 50_000
    read = Counting(client)
    fetch(read, signed.name)
    read.close()
    assert read.ranges[0] == "bytes=50000-"


class Counting(CoordinatorClient):
    """Remembers which part of each blob was asked for."""

    def __init__(self, client: CoordinatorClient) -> None:
        super().__init__(client.identity, client.url)
        self.ranges: list[str] = []

    @contextlib.contextmanager
    def streaming(self, method: str, path: str, **given: Any) -> Iterator[httpx.Response]:
        if path.startswith("/v1/blobs/"):
            self.ranges.append(given["headers"]["Range"])
        with super().streaming(method, path, **given) as response:
            yield response


def test_a_publication_that_is_cut_goes_on(client: CoordinatorClient, signed: Signed, move: Move) -> None:
    expected = logits(signed)
    torn = Torn(client, 150_000)
    offer(torn, signed)
    torn.close()
    move("second")
    assert torch.equal(logits(fetch(client, signed.name)), expected)
    assert torn.connections > 2


def test_a_connection_that_brings_nothing_is_given_up(
    client: CoordinatorClient, signed: Signed, move: Move
) -> None:
    offer(client, signed)
    move("second")
    torn = Torn(client, 0)
    with pytest.raises(CoordinatorAway):
        fetch(torn, signed.name)
    torn.close()
    assert torn.connections == exchange._TRIES
