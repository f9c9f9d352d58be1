"""The directory as a whole, under a virtual clock: it converges, heals and forgets."""

from __future__ import annotations

from typing import Any

import pytest

from sharedllm.nodes.gossip import Conditions, Kind, Network


def network(count: int = 60, seed: int = 1, **conditions: Any) -> Network:
    net = Network(seed, Conditions(**conditions))
    net.populate(count)
    net.run(1)
    return net


def test_what_one_node_knows_all_know_soon() -> None:
    net = network()
    assert len(net.spread(net.publish(0), 12)) <= 10


@pytest.mark.parametrize(
    "conditions",
    [{"loss": 0.2}, {"doubling": 0.5}, {"latency": 0.4}, {"deaf": 0.3}, {"encoded": True}],
    ids=["loss", "doubling", "jitter", "deaf", "encoded"],
)
def test_bad_conditions_delay_and_do_not_prevent(conditions: dict[str, Any]) -> None:
    net = network(**conditions)
    assert net.spread(net.publish(0), 40)[-1] == len(net.peers)


def test_the_same_seed_gives_the_same_course() -> None:
    one, other = (network(seed=7, latency=0.3, loss=0.1) for _ in range(2))
    assert one.spread(one.publish(0), 30) == other.spread(other.publish(0), 30)


def test_half_the_nodes_crash_and_the_rest_still_agree() -> None:
    net = network(100)
    for number in range(50):
        net.crash(number)
    assert net.spread(net.publish(99), 40)[-1] == 50


def test_a_partition_keeps_news_out_and_healing_lets_it_in() -> None:
    net = network(60)
    net.reaches = lambda a, b: (a < 30) == (b < 30)
    net.run(40)
    entry = net.publish(0)
    assert net.spread(entry, 15)[-1] == 30
    net.reaches = lambda a, b: True
    assert net.spread(entry, 60)[-1] == 60


def test_what_has_expired_is_forgotten_everywhere() -> None:
    net = network()
    entry = net.publish(0, life_s=20)
    net.spread(entry, 15)
    net.run(21)
    assert not any(len(peer.contents) for peer in net.peers.values())


def test_a_withdrawn_entry_does_not_come_back() -> None:
    net = network()
    author = net.author()
    told = author.issue(Kind.MANIFEST, b"k", b"{}", 100, net.now)
    net.peers[0].add(told, net.now)
    net.spread(told, 15)
    ended = author.withdraw(Kind.MANIFEST, b"k", net.now)
    net.peers[1].add(ended, net.now)
    net.spread(ended, 15)
    net.peers[2].add(told, net.now)
    net.run(10)
    assert not any(list(peer.live(Kind.MANIFEST, net.now)) for peer in net.peers.values())


def test_a_node_that_joins_by_one_seed_learns_all() -> None:
    net = network()
    net.spread(net.publish(0), 15)
    number = net.join(seeds=[5])
    net.run(4)
    assert len(net.peers[number].contents) == 1


def test_nodes_that_know_only_the_first_find_each_other() -> None:
    net = Network(3)
    first = net.join()
    for _ in range(80):
        net.join(seeds=[first])
    net.run(12)
    net.crash(first)
    assert net.spread(net.publish(1), 30)[-1] == 80


def test_many_entries_go_through_buckets() -> None:
    net = network(8)
    for key in range(600):
        entry = net.author().issue(Kind.VOTE, b"%d" % key, b"", 1000, net.now)
        net.peers[key % 8].add(entry, net.now)
    net.run(10)
    assert {len(peer.contents) for peer in net.peers.values()} == {600}
