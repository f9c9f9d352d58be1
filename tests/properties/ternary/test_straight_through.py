"""Training and the file round alike: whatever the weights, what was multiplied by is what is kept."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.model import Config, Transformer, train_tokenizer
from sharedllm.training.ternary import as_stored, at_rest, restored_model, rows_not_ternary, straight_through

TOKENIZER = train_tokenizer(["the cat sat on the mat"], 270)
CONFIG = Config(
    vocab_size=TOKENIZER.vocab_size,
    width=16,
    layers=1,
    heads=2,
    kv_heads=1,
    head_width=8,
    hidden=12,
    experts=2,
    context=16,
)
SCALES, PER = st.sampled_from(["mean", "median"]), st.sampled_from(["row", "matrix"])


def drawn(seed: int, magnitude: float, zeros: float) -> Transformer:
    """A model with weights of some size, some of them exactly zero."""
    torch.manual_seed(seed)
    model = Transformer(CONFIG)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10**magnitude).mul_(torch.rand_like(weight) >= zeros)
    return model


@given(st.integers(0, 2**31), st.floats(-4, 3), st.floats(0, 1), SCALES, PER)
@settings(deadline=None, max_examples=50)
def test_the_file_restores_what_the_forward_pass_multiplied_by(
    seed: int, magnitude: float, zeros: float, scale: str, per: str
) -> None:
    model = drawn(seed, magnitude, zeros)
    seen = straight_through(model, scale, per)  # type: ignore[arg-type]
    kept = as_stored(model, TOKENIZER, at_rest(model, scale, per))  # type: ignore[arg-type]
    assert all(torch.equal(seen[name], weight) for name, weight in kept.named_parameters() if name in seen)


@given(st.integers(0, 2**31), st.floats(-4, 3), st.floats(0, 1), SCALES, PER)
@settings(deadline=None, max_examples=50)
def test_no_row_ever_holds_two_magnitudes(
    seed: int, magnitude: float, zeros: float, scale: str, per: str
) -> None:
    model = drawn(seed, magnitude, zeros)
    assert rows_not_ternary(restored_model(model, scale, per)) == 0  # type: ignore[arg-type]


@given(st.integers(0, 2**31), st.floats(-4, 3), SCALES)
@settings(deadline=None, max_examples=50)
def test_no_weight_moves_further_than_half_a_scale_unless_it_is_cut_off(
    seed: int, magnitude: float, scale: str
) -> None:
    model = drawn(seed, magnitude, 0.0)
    rounded = dict(restored_model(model, scale, "row").named_parameters())  # type: ignore[arg-type]
    for name in straight_through(model, scale, "row"):  # type: ignore[arg-type]
        weight, scales = dict(model.named_parameters())[name], rounded[name].abs().amax(-1, keepdim=True)
        inside = weight.abs() <= scales
        assert ((weight - rounded[name]).abs() <= scales / 2 * (1 + 1e-3))[inside].all()
