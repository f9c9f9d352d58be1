"""A few seconds of what ``python -m tests.fuzz.wire`` does for minutes, without its coverage."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.sessions import Target
from tests.fuzz.targets import feed, seeds


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sharedllm.engines.server._ATTACH_S", 60.0)  # the target sets it: it is put back
        target = Target()
        yield target
        target.close()
    torch.set_num_threads(threads)


def test_every_seed_passes_and_some_make_the_engine_compute(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "patience_s", 10.0)
    for seed in seeds():
        feed(target, seed)
    assert target.engine.steps_done >= 5


@pytest.mark.parametrize("number", range(len(seeds())))
def test_mutated_seeds_break_nothing(target: Target, number: int) -> None:
    seed, chance = seeds()[number], random.Random(number)
    for _ in range(12):
        changed = bytearray(seed)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(1, len(changed))] = chance.randrange(256)
        feed(target, bytes(changed))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(range(5)), st.binary(max_size=300))
def test_no_bytes_break_anything(target: Target, choice: int, data: bytes) -> None:
    feed(target, bytes([choice]) + data)
