"""The verdict in words, for every way in which an interval can lie."""

from __future__ import annotations

import pytest

from sharedllm.adapters.personal import verdict


def said(nats: float, low: float, high: float, unit: str = "document") -> str:
    return verdict(
        {
            "gain_nats": nats,
            "gain_low_nats": low,
            "gain_high_nats": high,
            "base_nats": 3.4,
            "helped": low > 0,
            "held_out_tokens": 4120,
            f"held_out_{unit}s": 3,
        }
    )


def test_help_is_said_with_its_numbers():
    assert said(0.142, 0.09, 0.194) == (
        "On 3 held-out documents (4,120 tokens) the loss fell by 0.142 nats per token, from 3.400 to 3.258 "
        "(95 % interval 0.090 to 0.194): it helped."
    )


@pytest.mark.parametrize(("nats", "low", "high"), [(0.05, -0.01, 0.11), (-0.02, -0.1, 0.06)])
def test_an_interval_with_zero_in_it_is_no_help(nats, low, high):
    assert said(nats, low, high).endswith("that may be chance, so it did not clearly help.")


def test_harm_is_said_as_a_rise():
    assert "rose by 0.100 nats per token, from 3.400 to 3.500 (95 % interval 0.050 to 0.150)" in said(
        -0.1, -0.15, -0.05
    )
    assert said(-0.1, -0.15, -0.05).endswith("it did harm.")


def test_no_change_is_said_as_none():
    assert said(0.0, 0.0, 0.0, "section").startswith("On 3 held-out sections (4,120 tokens) nothing changed")
