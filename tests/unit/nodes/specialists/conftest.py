"""A coordinator on loopback with a library, a signed specialist on one machine, and another machine."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import adapters, store
from sharedllm.model import Config, Tokenizer, Transformer, train_tokenizer
from sharedllm.nodes.coordinator import CoordinatorClient
from sharedllm.store import specialists
from sharedllm.store.specialists import Signed
from tests.unit.nodes.coordinator.conftest import Served

CONFIG = Config(vocab_size=300, width=64, layers=2, heads=2, kv_heads=2, head_width=32, hidden=128)
QUOTA_BYTES = 100_000_000


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("library"), library_bytes=QUOTA_BYTES)
    yield served
    served.end()


@pytest.fixture
def client(served: Served) -> CoordinatorClient:
    return served.client("worker", "attic")


@pytest.fixture
def private() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Go on as a machine of another name, with another store."""

    def to(name: str) -> None:
        monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / name))

    to("first")
    return to


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the river rises in the hills"] * 4, 300)


@pytest.fixture
def signed(
    move: Callable[[str], None],
    private: Ed25519PrivateKey,
    tokenizer: Tokenizer,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Signed:
    """A whole model, of another name in each test: the library remembers who took one first."""
    torch.manual_seed(zlib.crc32(request.node.name.encode()))
    name = f"tiny-{tmp_path.name}".lower().replace("[", "-").replace("]", "")[:60]
    body = store.keep_model(name, Transformer(CONFIG), tokenizer, licence="MIT", provenance={})
    made = specialists.sign(body, private)
    specialists.publish(name, made)
    return made


@pytest.fixture
def adapted(signed: Signed, private: Ed25519PrivateKey, tmp_path: Path) -> Signed:
    """The model wearing an adapter, which says what its base is called."""
    gains = specialists.live(signed).model.gains()
    adapter = adapters.Adapter(
        "norm", signed.body.weights_sha256, {name: torch.ones_like(gain) for name, gain in gains.items()}
    )
    adapters.write(tmp_path / "a", adapter)
    provenance = {"base": {"name": "tiny"}}
    body = specialists.with_adapter(
        f"{signed.name}-a", signed.body, "norm", tmp_path / "a", provenance=provenance
    )
    return specialists.sign(body, private)
