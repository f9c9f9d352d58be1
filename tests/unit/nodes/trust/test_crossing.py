"""Other federations: chains of roots, and what is believed by them."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from sharedllm.nodes.trust import BadRoot, Chain, NotBelieved, Root, seal
from sharedllm.nodes.trust.trials import DAY_S, FORGERIES, Believer, Federation, forge, fork

NOW = 10 * DAY_S + 60.0


def federation(name: str = "north") -> Federation:
    return Federation(name, 0, 30, notice_s=3 * DAY_S, life_s=7 * DAY_S)


@pytest.fixture
def home() -> Federation:
    return federation()


@pytest.fixture
def believer(home: Federation) -> Believer:
    believer = Believer(home)
    believer.sync(NOW)
    return believer


def unsigned(root: Root, **changes: object) -> Root:
    return dataclasses.replace(root, signatures={}, **changes)  # type: ignore[arg-type]


def test_an_honest_receipt_is_believed(home: Federation, believer: Believer) -> None:
    assert believer.accepts(home.receipt(NOW, b"served"), NOW)


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_receipt_is_not_believed(home: Federation, believer: Believer, kind: str) -> None:
    assert not believer.accepts(forge(kind, home, federation("east"), NOW, random.Random(0)), NOW)


def test_an_expired_root_is_not_believed_any_more(home: Federation, believer: Believer) -> None:
    key, message, signature, at_s = home.receipt(NOW, b"served")
    with pytest.raises(NotBelieved, match="expired"):
        believer.chain.check(key, message, signature, at_s, NOW + 8 * DAY_S)


def test_a_root_reads_back_as_it_was_written(home: Federation) -> None:
    root = home.roots[5]
    again = Root.from_bytes(root.to_bytes())
    assert (again, again.signatures) == (root, root.signatures)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 2},
        {"founders": []},
        {"version": -1},
        {"version": True},
        {"keys": [["x", 1, 2]]},
        {"more": 1},
        {"federation": "north\x1b[2J"},
    ],
)
def test_a_root_that_can_not_be_one_is_refused(home: Federation, change: dict[str, object]) -> None:
    said = json.loads(home.roots[5].to_bytes()) | change
    with pytest.raises(BadRoot, match="is none"):
        Root.from_bytes(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())


def test_a_root_signed_by_three_of_five_is_refused(home: Federation, believer: Believer) -> None:
    following = seal(unsigned(home.roots[11]), home.founders[:3])
    with pytest.raises(BadRoot, match="signed by 3 founders"):
        believer.chain.take(following)


def test_new_founders_alone_can_not_take_over(home: Federation, believer: Believer) -> None:
    others = federation("east").founders
    keys = tuple(founder.public_bytes.hex() for founder in others)
    with pytest.raises(BadRoot, match="signed by 0 founders"):
        believer.chain.take(seal(unsigned(home.roots[11], founders=keys), others))


def test_old_founders_can_hand_over_to_new_ones(home: Federation, believer: Believer) -> None:
    others = federation("east").founders
    keys = tuple(founder.public_bytes.hex() for founder in others)
    handed = seal(unsigned(home.roots[11], founders=keys), [*others, *home.founders])
    assert believer.chain.take(handed)


def test_a_root_that_skips_one_is_refused(home: Federation, believer: Believer) -> None:
    with pytest.raises(BadRoot, match="does not follow"):
        believer.chain.take(home.roots[13])


def test_an_old_root_changes_nothing(home: Federation, believer: Believer) -> None:
    assert believer.chain.take(home.roots[3]) is False
    assert believer.chain.current.version == home.roots[10].version


def test_a_first_root_that_too_few_signed_is_refused(home: Federation) -> None:
    with pytest.raises(BadRoot, match="first root"):
        Chain(seal(unsigned(home.roots[0]), home.founders[:3]))


def test_two_founders_can_not_fork(home: Federation) -> None:
    assert fork(home, 2) == (False, False, 0)


def test_three_can_and_are_named(home: Federation) -> None:
    assert fork(home, 3) == (True, True, 3)


def test_after_a_fork_nothing_is_believed(home: Federation, believer: Believer) -> None:
    with pytest.raises(BadRoot, match="two different roots"):
        believer.chain.take(seal(unsigned(home.roots[10], keys=()), home.founders))
    assert not believer.accepts(home.receipt(NOW, b"served"), NOW)


def test_a_fork_that_is_not_signed_freezes_nothing(home: Federation, believer: Believer) -> None:
    with pytest.raises(BadRoot, match="signed by 0"):
        believer.chain.take(unsigned(home.roots[10], keys=()))
    assert believer.accepts(home.receipt(NOW, b"served"), NOW)
