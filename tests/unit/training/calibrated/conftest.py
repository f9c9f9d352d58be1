"""A tiny base, dense or mixed, and text of its made-up language."""

from __future__ import annotations

import pytest

from sharedllm.store import Loaded
from sharedllm.training.calibrated import Texts
from tests.unit.training.calibrated.tiny import DENSE, MIXED, made_up, trained


@pytest.fixture(scope="session")
def texts() -> Texts:
    return made_up()


@pytest.fixture(scope="session", params=[DENSE, MIXED], ids=["dense", "mixed"])
def base(request: pytest.FixtureRequest, texts: Texts) -> Loaded:
    return trained(request.param, texts)
