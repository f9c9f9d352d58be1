"""Any numbers survive their file, any damage is refused or harmless, any text splits without a leak."""

from __future__ import annotations

import contextlib
import hashlib
import math
import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.adapters import AT_REST, Adapter, read, rounded, write
from sharedllm.adapters.personal import split
from sharedllm.adapters.personal.gain import gain_between
from sharedllm.corpus import Document, Excerpt
from sharedllm.errors import BadAdapter, BadText

torch.set_num_threads(1)
steady = settings(deadline=None)
numbers = st.floats(-1e4, 1e4, width=32)
vectors = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=1, max_size=4)
)


def adapter(rows: list[list[float]]) -> Adapter:
    return Adapter("norm", "b", {"norm.weight": torch.tensor(rows, dtype=torch.float32)})


@steady
@given(vectors, st.sampled_from(AT_REST))
def test_what_is_read_is_what_rounding_says(rows, precision):
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "a", adapter(rows), precision)
        back = read(Path(folder) / "a", "b").tensors["norm.weight"]
    assert torch.equal(back, rounded(adapter(rows), precision).tensors["norm.weight"])


@steady
@given(vectors)
def test_int8_is_off_by_at_most_half_a_step_of_its_vectors_scale(rows):
    x = torch.tensor(rows, dtype=torch.float32).double()
    back = rounded(adapter(rows), "int8").tensors["norm.weight"].double()
    step = (x.abs().amax(-1, keepdim=True) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    assert bool(((back - x).abs() <= 0.5 * step * (1 + 1e-4)).all())


@steady
@given(vectors)
def test_int8_keeps_the_largest_number_of_each_vector_and_every_zero(rows):
    x = torch.tensor(rows, dtype=torch.float32)
    back = rounded(adapter(rows), "int8").tensors["norm.weight"]
    torch.testing.assert_close(back.abs().amax(-1), x.abs().amax(-1), rtol=1e-5, atol=1e-36)
    assert not back[x == 0].any()


@steady
@given(vectors, st.sampled_from(AT_REST), st.integers(0, 10_000), st.integers(0, 254), st.booleans())
def test_a_damaged_file_of_any_precision_is_refused_or_still_holds_numbers(rows, precision, at, by, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        write(path, adapter(rows), precision, {"gain_nats": 0.1})
        data = path.read_bytes()
        at %= len(data)
        path.write_bytes(data[:at] if cut else data[:at] + bytes([data[at] ^ (1 + by)]) + data[at + 1 :])
        with contextlib.suppress(BadAdapter):
            back = read(path, "b")
            assert all(bool(t.isfinite().all()) for t in back.tensors.values() if t.is_floating_point())


def _document(number: int, text: str) -> Document:
    data = text.encode()
    return Document(str(number), "", text, "own", len(data), hashlib.sha256(data).hexdigest())


@steady
@given(
    st.lists(
        st.tuples(st.text(st.sampled_from("ab. \nü"), min_size=1, max_size=40), st.integers(1, 400)),
        min_size=1,
        max_size=30,
    )
)
def test_any_text_splits_so_that_nothing_is_lost_and_nothing_is_on_two_sides(parts):
    texts = dict.fromkeys(f"{i}{piece * times}" for i, (piece, times) in enumerate(parts))
    documents = [_document(i, text) for i, text in enumerate(texts)]
    try:
        made = split(documents)
    except BadText:
        return
    sides = [{d.id for d in side} for side in (made.train, made.validation, made.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert sum(d.n_bytes for side in (made.train, made.validation, made.test) for d in side) == sum(
        d.n_bytes for d in documents
    )
    assert len(made.test) >= 3
    if made.unit == "document":
        assert set.union(*sides) == {d.id for d in documents}


@steady
@given(
    st.lists(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=6), min_size=2, max_size=12),
    st.floats(-3, 3, width=32),
)
def test_a_gain_lies_in_its_interval_and_moves_with_every_token(falls, more):
    excerpts = [Excerpt(str(i), tuple(range(len(f) + 1))) for i, f in enumerate(falls)]
    before = [torch.full((len(f),), 9.0, dtype=torch.float64) for f in falls]

    def gain(shift: float):
        after = [b - torch.tensor(f, dtype=torch.float64) - shift for b, f in zip(before, falls, strict=True)]
        return gain_between(excerpts, before, after)

    one, two = gain(0.0), gain(more)
    assert one.low <= one.nats <= one.high
    assert math.isclose(two.nats - one.nats, more, abs_tol=1e-9)
    assert math.isclose(two.high - two.low, one.high - one.low, abs_tol=1e-6)
