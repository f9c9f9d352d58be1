"""On SmolLM2-135M: gains learn an author within a few steps, and the base stays what it was."""

from __future__ import annotations

import pytest
import torch

from sharedllm.adapters import Budget, Fit, applied, fit
from sharedllm.corpus import user
from sharedllm.model import score
from sharedllm.store import Loaded, load

pytestmark = pytest.mark.slow
BUDGET = Budget(tokens=1024, batch=2, window=128, evaluations=1, validation=512)


@pytest.fixture(scope="module")
def smollm() -> Loaded:
    return load("smollm2-135m")


@pytest.fixture(scope="module")
def texts(smollm) -> dict[str, list[int]]:
    milton = user("milton")
    splits = {"train": milton.train, "validation": milton.validation}
    return {
        name: smollm.tokenizer.encode(" ".join(d.text for d in docs[:4]))[:4000]
        for name, docs in splits.items()
    }


@pytest.fixture(scope="module")
def made(smollm, texts) -> Fit:
    return fit(smollm, texts["train"], texts["validation"], "norm", 3e-3, 0, BUDGET)


def test_four_steps_on_an_author_lower_the_loss_of_other_chapters(made):
    assert made.trainable == 35_136
    assert made.adapter.n_bytes == 4 * 35_136
    assert made.best_nats < made.validation_nats[0][1] - 0.02


def test_the_base_is_restored_bit_for_bit_after_a_fit_and_an_application(smollm, made):
    weights = [weight.detach().numpy().tobytes() for weight in smollm.model.gains().values()]
    with applied(smollm.model, made.adapter):
        pass
    again = load("smollm2-135m")
    assert weights == [weight.detach().numpy().tobytes() for weight in again.model.gains().values()]
    assert all(
        torch.equal(one, two)
        for one, two in zip(smollm.model.parameters(), again.model.parameters(), strict=True)
    )


def test_rounding_a_full_delta_to_fp16_moves_the_loss_by_less_than_a_ten_thousandth(smollm, texts):
    budget = Budget(tokens=256, batch=1, window=128, evaluations=1, validation=128)
    held = texts["validation"][:129]
    full = fit(smollm, texts["train"], held, "full", 3e-5, 0, budget)
    assert full.best_step == 2
    with applied(smollm.model, full.adapter):
        assert float(score(smollm.model, held, 256).mean()) == pytest.approx(full.best_nats, abs=1e-4)
