"""Two users with habits of their own, on a base too small to matter, in a store of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sharedllm import adapters, corpus
from sharedllm.bets.personal import Circle
from sharedllm.corpus import Document, User
from sharedllm.model import Config, Transformer
from sharedllm.store import Loaded, Manifest, sha256_of

SHAPE = {"vocab_size": 61, "width": 16, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 4, "hidden": 24}
BUDGET = adapters.Budget(tokens=128, batch=2, window=16, evaluations=2, validation=32)
USERS = ("count", "step")


class Letters:
    """A tokenizer of one token per letter."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 61 for letter in text]

    def decode(self, tokens: list[int]) -> str:
        return "".join(chr(48 + token) for token in tokens)


def user(name: str) -> User:
    stride = {"count": 1, "step": 7}[name]

    def document(part: str, start: int) -> tuple[Document, ...]:
        text = "".join(chr(48 + (start + i * stride) % 61) for i in range(120))
        texts = {"a": text, "b": text[3:]}
        return tuple(
            Document(f"{name}/{part}/{id}", id, kept, "habits", len(kept), sha256_of(kept.encode()))
            for id, kept in texts.items()
        )

    return User(name, name, "habit", document("x", 0), document("y", 5), document("z", 9), licence="none")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Circle]:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    monkeypatch.setattr(corpus, "user", user)
    torch.manual_seed(0)
    config = Config(**SHAPE, experts=0, context=256, tied_head=True)
    model = Transformer(config).eval()
    with torch.no_grad():
        model.embed.weight.mul_(20)
    manifest = Manifest("small", config, "t" * 64, "0" * 64, {}, "F32", "none", {})
    base = Loaded(model, Letters(), manifest)  # type: ignore[arg-type]

    def make(swept: tuple[str, ...] = USERS) -> Circle:
        return Circle(base, USERS, BUDGET, test_tokens=64, precision="fp32", swept=swept, most=3)

    return make
