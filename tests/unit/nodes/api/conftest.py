"""One server for each file, a service in its first state for each test, and the clients that people use."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.unit.nodes.api.stand_in import DEADLINE_S, Running, StandIn, running


@pytest.fixture(scope="module")
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture(scope="module")
def server(stand_in: StandIn) -> Iterator[Running]:
    with running(stand_in) as started:
        yield started


@pytest.fixture
def service(stand_in: StandIn, server: Running) -> Iterator[StandIn]:
    stand_in.reset()
    yield stand_in
    assert not stand_in.open, "a stream was left running"


@pytest.fixture(scope="module")
def openai_client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=DEADLINE_S
    ) as made:
        yield made


@pytest.fixture
def client(openai_client: openai.OpenAI, service: StandIn) -> openai.OpenAI:
    return openai_client


@pytest.fixture(scope="module")
def web_client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=DEADLINE_S) as made:
        yield made


@pytest.fixture
def web(web_client: httpx.Client, service: StandIn) -> httpx.Client:
    return web_client
