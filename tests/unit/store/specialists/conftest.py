"""A key, a tiny model in the store of the test, and it as a signed specialist."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import adapters, store
from sharedllm.model import Config, Tokenizer, Transformer, train_tokenizer
from sharedllm.store import specialists
from sharedllm.store.specialists import Signed

CONFIG = Config(
    vocab_size=300, width=32, layers=2, heads=2, kv_heads=1, head_width=16, hidden=48, context=64, experts=2
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("SHAREDLLM_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat", "def main() -> None: return 12345"] * 4, 300)


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(CONFIG).eval()


@pytest.fixture
def base(model: Transformer, tokenizer: Tokenizer) -> store.Manifest:
    return store.keep_model("tiny", model, tokenizer, licence="MIT", provenance={"seed": 0})


@pytest.fixture
def signed(base: store.Manifest, key: Ed25519PrivateKey) -> Signed:
    return specialists.sign(base, key)


@pytest.fixture
def adapter(base: store.Manifest, model: Transformer) -> adapters.Adapter:
    torch.manual_seed(1)
    gains = {name: 0.1 * torch.randn_like(gain) for name, gain in model.gains().items()}
    return adapters.Adapter("norm", base.weights_sha256, gains)


@pytest.fixture
def adapted(
    base: store.Manifest, adapter: adapters.Adapter, key: Ed25519PrivateKey, tmp_path: Path
) -> Signed:
    """The tiny model wearing an adapter."""
    adapters.write(tmp_path / "a.safetensors", adapter)
    body = specialists.with_adapter("worn", base, "norm", tmp_path / "a.safetensors", provenance={})
    return specialists.sign(body, key)
