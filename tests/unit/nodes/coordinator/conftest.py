"""A clock that only moves when told, a directory on a database of its own, and a real coordinator process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from sharedllm.nodes.coordinator import CoordinatorClient
from sharedllm.nodes.coordinator.database import open_database
from sharedllm.nodes.coordinator.registry import Registry
from sharedllm.nodes.coordinator.schemas import NodeReport, PipelineRequest
from sharedllm.nodes.coordinator.status import Coordinator
from sharedllm.nodes.identity import Authority, Identity, enrol

MODEL = "ab" * 32


class Clock:
    """Unix seconds that stand still."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(tmp_path)
    yield engine
    engine.dispose()


@pytest.fixture
def registry(engine: Engine, clock: Clock) -> Registry:
    return Registry(engine, clock=clock)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.load_or_create(tmp_path)


@pytest.fixture
def coordinator(engine: Engine, authority: Authority, clock: Clock) -> Coordinator:
    return Coordinator(engine, authority, clock=clock)


@pytest.fixture
def report() -> Callable[..., NodeReport]:
    def make(name: str, **fields: Any) -> NodeReport:
        usual: dict[str, Any] = {
            "name": name,
            "role": "worker",
            "host": name,
            "started": 1.0,
            "endpoints": [{"kind": "lan", "host": "127.0.0.1", "port": 50052}],
            "memory_bytes": 1_000,
            "models": [MODEL],
            "read_bytes_per_s": 1_000.0,
            "bandwidth_bytes_per_s": 1e9,
            "version": "0.1.0",
        }
        return NodeReport.model_validate(usual | fields)

    return make


@pytest.fixture
def wish() -> Callable[..., PipelineRequest]:
    """Ten layers of 100 bytes each with their cache."""

    def make(**changed: Any) -> PipelineRequest:
        model = {
            "name": "tiny",
            "hash": MODEL,
            "layers": 10,
            "layer_bytes": 90,
            "cache_bytes_per_layer": 10,
            "width": 64,
            "activation_bytes": 128,
        }
        return PipelineRequest.model_validate({"model": model | changed.pop("model", {}), **changed})

    return make


@pytest.fixture
def beat(coordinator: Coordinator, report: Callable[..., NodeReport]) -> Callable[..., None]:
    """Nodes are heard of; two primaries were already."""

    def one(node: str, name: str, **fields: Any) -> None:
        coordinator.registry.heartbeat(node, report(name, **fields))

    one("0" * 31 + "1", "desk", role="primary")
    one("0" * 31 + "2", "sofa", role="primary")
    return one


@pytest.fixture
def two(beat: Callable[..., None]) -> Callable[..., None]:
    """Two workers, neither of which holds the model alone."""
    beat("a" * 32, "attic", memory_bytes=500)
    beat("b" * 32, "barn", memory_bytes=500)
    return beat


SERVE = """
import sys
from pathlib import Path
from sharedllm.nodes.coordinator import CoordinatorSettings, serve

kinds = {"tls_cert": Path, "tls_key": Path, "relay_port": int, "library_bytes": int}
optional = {name: kinds[name](value) for name, value in (given.split("=", 1) for given in sys.argv[2:])}
serve(CoordinatorSettings(Path(sys.argv[1]), host="127.0.0.1", port=0, **optional))
"""


class Served:
    """A coordinator in a process of its own, on loopback, with its state in ``state``."""

    def __init__(self, state: Path, **settings: object) -> None:
        self.state, self._more = state, [f"{name}={value}" for name, value in settings.items()]
        self.clients: list[CoordinatorClient] = []
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", SERVE, str(self.state), *self._more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        word, _, self.url = self.process.stdout.readline().strip().partition(" ")
        assert word == "ready"

    def end(self, *, kill: bool = False) -> int:
        """End the process, if it has not ended, by SIGKILL or SIGTERM; return its exit code."""
        for client in self.clients:
            client.close()
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        code = self.process.wait(timeout=20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def identity(self, role: str, name: str) -> Identity:
        """A node with a certificate of this federation, which nobody has heard of yet."""
        folder = self.state / "nodes" / name
        if not folder.exists():
            return enrol(Authority.load_or_create(self.state), folder, role)
        return Identity.load(folder)

    def client(self, role: str, name: str) -> CoordinatorClient:
        client = CoordinatorClient(self.identity(role, name), self.url)
        self.clients.append(client)
        return client


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served"))
    yield served
    served.end()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start a coordinator for one test, with a state of its own."""
    started: list[Served] = []

    def start(**settings: object) -> Served:
        started.append(Served(tmp_path / "served", **settings))
        return started[-1]

    yield start
    for served in started:
        served.end()
