"""Addresses that strangers send are checked before anyone dials them."""

from __future__ import annotations

from typing import Any

import pytest

from sharedllm.nodes.errors import DialFailed
from sharedllm.nodes.proxy import Endpoint, in_order

RELAY = "d" * 32


@pytest.mark.parametrize("host", ["10.0.0.7", "::1", "fe80::1", "node-3.example.org", "localhost"])
def test_an_address_survives_its_journey(host: str) -> None:
    endpoint = Endpoint("relay", host, 8430, RELAY)
    assert Endpoint.from_dict(endpoint.to_dict()) == endpoint


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "moon"},
        {"kind": ["lan"]},
        {"host": ""},
        {"host": "a b"},
        {"host": "-x"},
        {"host": "x" * 254},
        {"host": "fe80::1%eth0"},
        {"host": None},
        {"host": "evil\nhost"},
        {"port": 0},
        {"port": 65536},
        {"port": True},
        {"port": "80"},
        {"relay": RELAY},
        {"kind": "relay"},
        {"extra": 1},
    ],
)
def test_what_is_no_address_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DialFailed, match="An address"):
        Endpoint.from_dict({"kind": "lan", "host": "10.0.0.7", "port": 1, "relay": None, **changes})


@pytest.mark.parametrize("data", [None, [], "lan", {}, {"kind": "lan", "host": "a"}])
def test_what_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(DialFailed, match="exactly the fields"):
        Endpoint.from_dict(data)


def test_a_lan_comes_before_a_wan_before_a_relay() -> None:
    relay, wan, lan = Endpoint("relay", "r", 1, RELAY), Endpoint("wan", "w", 1), Endpoint("lan", "l", 1)
    assert in_order([relay, wan, lan, wan]) == [lan, wan, relay]
