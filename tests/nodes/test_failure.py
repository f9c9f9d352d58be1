"""Nodes are harmed while a sentence is being told; it must go on, bit for bit, or end with a sentence."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import openai
import psutil
import pytest

from sharedllm.nodes.local import Process
from tests.nodes.harness import Network, within

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("position", [0, 1], ids=["first", "last"])
def test_a_killed_worker_does_not_change_the_sentence(
    network: Network, undisturbed: str, position: int
) -> None:
    victim = network.serving()[position]
    told = network.tell(victim.kill)
    assert (told.text, told.finish) == (undisturbed, "length")


def test_a_killed_engine_alone_does_not_change_the_sentence(network: Network, undisturbed: str) -> None:
    worker = psutil.Process(network.serving()[-1].pid)
    engine = next(child for child in worker.children() if "worker.child" in " ".join(child.cmdline()))
    told = network.tell(engine.kill)
    assert told.text == undisturbed


@pytest.mark.parametrize("position", [0, 1], ids=["first", "last"])
def test_a_frozen_worker_does_not_change_the_sentence(
    network: Network, undisturbed: str, position: int
) -> None:
    victim = network.serving()[position]
    told = network.tell(victim.freeze)
    assert told.text == undisturbed


def test_a_worker_that_becomes_ten_times_slower_does_not_change_the_sentence(
    network: Network, undisturbed: str
) -> None:
    with ten_times_slower(network.serving()[0]):
        told = network.tell()
    assert told.text == undisturbed


def test_a_worker_that_is_told_to_end_hands_over_first(network: Network, undisturbed: str) -> None:
    leaving = network.serving()[0]
    told = network.tell(leaving.ask_to_stop)
    assert leaving.wait(30)
    assert told.text == undisturbed


def test_several_streams_survive_the_same_loss(network: Network, undisturbed: str) -> None:
    texts: list[str] = []
    others = [threading.Thread(target=lambda: texts.append(network.tell().text)) for _ in range(4)]
    for other in others:
        other.start()
    texts.append(network.tell(network.serving()[-1].kill).text)
    for other in others:
        other.join(120)
    assert texts == [undisturbed] * 5


def test_a_coordinator_that_is_down_stops_nobody(network: Network, undisturbed: str) -> None:
    told = network.tell(network.federation.coordinator.kill)
    assert told.text == undisturbed
    assert network.tell().text == undisturbed


def test_a_worker_lost_while_the_coordinator_is_down_is_replaced_by_the_spare(
    network: Network, undisturbed: str
) -> None:
    def both() -> None:
        network.federation.coordinator.kill()
        network.serving()[-1].kill()

    assert network.tell(both).text == undisturbed


def test_a_coordinator_that_starts_again_knows_everyone(network: Network) -> None:
    before = {node["id"] for node in network.federation.status()["nodes"]}
    network.federation.coordinator.kill()
    network.federation.coordinator.start()
    network.federation.coordinator.await_ready(60)
    within(30, lambda: {node["id"] for node in network.federation.status()["nodes"]} == before)


def test_clients_of_a_primary_that_dies_are_told_at_once(network: Network) -> None:
    died_s: list[float] = []

    def die() -> None:
        network.federation.primary.kill()
        died_s.append(time.monotonic())

    with pytest.raises((openai.APIConnectionError, httpx.HTTPError)):
        network.tell(die)
    assert time.monotonic() - died_s[0] < 5


def test_without_workers_the_refusal_says_which_layers_lack_a_home(network: Network) -> None:
    for worker in network.federation.workers:
        worker.kill()
    within(60, lambda: network.state()["status"] == "none")
    with pytest.raises(openai.InternalServerError, match=r"[Ll]ayers 0–3 .* memory is missing"):
        network.tell()


@contextmanager
def ten_times_slower(victim: Process) -> Iterator[None]:
    """Let a process and its children run one twentieth of a second in every half."""
    ended = threading.Event()

    def stutter() -> None:
        while not ended.wait(0.05):
            victim.freeze()
            ended.wait(0.45)
            victim.thaw()

    thread = threading.Thread(target=stutter)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        os.kill(victim.pid, signal.SIGCONT)
