"""The chunked loss is cross-entropy with its gradients, windows are the text, damaged files are refused."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.adapters import Adapter, Budget, read, write
from sharedllm.adapters.fit import batches, spread
from sharedllm.adapters.head import ROWS, mean_nats
from sharedllm.errors import BadAdapter

torch.set_num_threads(1)
steady = settings(deadline=None)  # no timing decides a test
seeds = st.integers(0, 2**31)


@steady
@given(seeds, st.sampled_from([1, 5, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 3]), st.integers(2, 40))
def test_the_chunked_loss_and_its_gradients_are_those_of_cross_entropy(seed, m, v):
    generator = torch.Generator().manual_seed(seed)
    h_MD = torch.randn(m, 6, generator=generator, requires_grad=True)
    weight_VD = (3 * torch.randn(v, 6, generator=generator)).requires_grad_()
    targets_M = torch.randint(v, (m,), generator=generator)
    nats = mean_nats(h_MD, weight_VD, targets_M, "fp32")
    expected = F.cross_entropy(h_MD @ weight_VD.T, targets_M)
    torch.testing.assert_close(nats, expected, atol=1e-5, rtol=1e-5)
    ours = torch.autograd.grad(2 * nats, (h_MD, weight_VD))
    theirs = torch.autograd.grad(2 * expected, (h_MD, weight_VD))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@steady
@given(seeds, st.integers(1, 5), st.integers(1, 9), st.integers(0, 60))
def test_every_training_row_is_a_window_of_the_text_and_an_epoch_repeats_none(seed, batch, window, surplus):
    text_T = torch.arange(window + 1 + surplus)
    budget = Budget(tokens=batch * window, batch=batch, window=window, validation=window)
    rows = [row for b in itertools.islice(batches(text_T, budget, seed), 4) for row in b.tolist()]
    assert all(row == list(range(row[0], row[0] + window + 1)) for row in rows)
    first_epoch = (len(text_T) - 1) // window - 1  # at least so many whatever the phase
    starts = [row[0] for row in rows][: max(1, first_epoch)]
    assert len(set(starts)) == len(starts)


@steady
@given(st.integers(1, 9), st.integers(0, 90), st.integers(0, 100))
def test_validation_windows_lie_in_the_text_from_its_first_to_its_last_token(window, surplus, more):
    text_T = torch.arange(window + 1 + surplus)
    budget = Budget(tokens=window, batch=1, window=window, validation=window + more)
    held_BT = spread(text_T, budget)
    assert held_BT[0, 0] == 0
    assert len(held_BT) == 1 or held_BT[-1, -1] == len(text_T) - 1
    assert len(held_BT) * window <= max(window, budget.validation)


@steady
@given(seeds, st.integers(0, 200), st.booleans())
def test_a_damaged_file_is_refused_or_is_still_an_adapter_of_finite_numbers(seed, at, cut):
    adapter = Adapter(
        "norm", "b", {"norm.weight": torch.randn(8, generator=torch.Generator().manual_seed(seed))}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        write(path, adapter)
        data = bytearray(path.read_bytes())
        at %= len(data)
        data = data[:at] if cut else data[:at] + bytes([data[at] ^ (1 + seed % 255)]) + data[at + 1 :]
        path.write_bytes(data)
        with contextlib.suppress(BadAdapter):
            back = read(path, "b")
            assert all(bool(t.isfinite().all()) for t in back.tensors.values() if t.is_floating_point())


@given(st.integers(-3, 200), st.integers(-1, 8), st.integers(-1, 20), st.integers(-1, 3))
def test_a_budget_makes_at_least_a_step_or_is_refused(tokens, batch, window, evaluations):
    from sharedllm.errors import BadRecipe

    try:
        budget = Budget(tokens, batch, window, evaluations)
    except BadRecipe:
        return
    assert budget.steps >= 1
    assert budget.steps * budget.batch * budget.window <= tokens


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_without_gradients_is_the_same(precision):
    h_MD, weight_VD, targets_M = torch.randn(300, 8), torch.randn(50, 8), torch.randint(50, (300,))
    with torch.no_grad():
        plain = mean_nats(h_MD, weight_VD, targets_M, precision)
    assert torch.equal(plain, mean_nats(h_MD.requires_grad_(), weight_VD, targets_M, precision).detach())
