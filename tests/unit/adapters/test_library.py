"""Adapters kept by name."""

from __future__ import annotations

import pytest
import torch

from sharedllm.adapters import Adapter, library
from sharedllm.errors import BadAdapter, UnknownName

MINE = Adapter("norm", "b" * 64, {"norm.weight": torch.linspace(0, 1, 8)})


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    return tmp_path


def test_what_was_saved_comes_back_with_what_was_said_of_it():
    library.save("me", MINE, {"gain_nats": 0.5})
    assert torch.equal(library.load("me").tensors["norm.weight"], MINE.tensors["norm.weight"])
    assert library.load("me").base_sha256 == MINE.base_sha256
    assert library.about("me").about == {"gain_nats": 0.5}


def test_names_are_those_of_whole_adapters_alone(store):
    assert library.names() == []
    library.save("work", MINE, {})
    library.save("me", MINE, {})
    (store / "adapters" / ".me.partial").write_bytes(b"x")
    (store / "adapters" / "notes.txt").write_bytes(b"x")
    assert library.names() == ["me", "work"]


def test_saving_again_replaces():
    library.save("me", MINE, {"n": 1})
    library.save("me", MINE, {"n": 2}, "int8")
    assert (library.about("me").about, library.about("me").precision) == ({"n": 2}, "int8")


def test_a_removed_adapter_is_gone():
    library.save("me", MINE, {})
    library.remove("me")
    with pytest.raises(UnknownName, match=r"no adapter 'me'; there are: none"):
        library.load("me")


@pytest.mark.parametrize("name", ["", ".me", "../me", "Me", "a/b", "a" * 65, "me\n"])
def test_what_is_no_name_names_no_file(name):
    with pytest.raises(UnknownName, match="can't name an adapter"):
        library.save(name, MINE, {})
    with pytest.raises(UnknownName, match="There is no adapter"):
        library.path_of(name)


def test_a_damaged_adapter_is_refused_when_it_is_read(store):
    library.save("me", MINE, {})
    path = store / "adapters" / "me.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BadAdapter, match="whole safetensors"):
        library.load("me")
