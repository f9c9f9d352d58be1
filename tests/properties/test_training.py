"""Training's parts: bounded schedules, nearly orthogonal updates, batches that only the step decides."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.training import Streams, factor, newton_schulz

SINGULAR_HIGH = 1.3  # Jordan et al. 2024: about [0.7, 1.2] for well-conditioned gradients

streams = st.dictionaries(
    st.text("abc", min_size=1, max_size=2), st.integers(2, 200), min_size=1, max_size=4
).map(lambda sizes: Streams({name: torch.arange(size) for name, size in sizes.items()}))


@given(st.integers(1, 500), st.floats(0, 0.5), st.floats(0, 0.5), st.data())
def test_the_learning_rate_stays_in_bounds(
    steps: int, warmup: float, decay: float, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < factor(step, steps, warmup, decay) <= 1


@given(st.integers(1, 24), st.integers(1, 24), st.integers(1, 3), st.integers(0, 2**31), st.floats(-6, 6))
@settings(deadline=None)
def test_no_update_is_larger_than_the_bound(
    rows: int, columns: int, batch: int, seed: int, magnitude: float
) -> None:
    chance = torch.Generator().manual_seed(seed)
    g = torch.randn(batch, rows, columns, generator=chance) * 10**magnitude
    assert torch.linalg.matrix_norm(newton_schulz(g), 2).max() < SINGULAR_HIGH


@given(streams, st.integers(0, 1000), st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 64))
@settings(deadline=None)
def test_a_batch_depends_on_nothing_but_its_step(
    text: Streams, step: int, seed: int, rows: int, window: int
) -> None:
    before = text.batch(step, seed, rows, window)
    text.batch(step + 1, seed, rows, window)
    assert torch.equal(text.batch(step, seed, rows, window), before)
    assert before.shape == (rows, window + 1)


@given(streams, st.integers(0, 1000), st.integers(1, 5), st.integers(1, 64))
@settings(deadline=None)
def test_windows_are_stretches_of_one_stream(text: Streams, step: int, rows: int, window: int) -> None:
    lengths = {len(stream) for stream in text.tokens.values()}
    for row in text.batch(step, 0, rows, window):
        steps = (row[1:] - row[:-1]).tolist()
        assert all(moved == 1 or 1 - moved in lengths for moved in steps)


@given(streams)
def test_shares_sum_to_one(text: Streams) -> None:
    assert abs(sum(text.shares().values()) - 1) < 1e-12
