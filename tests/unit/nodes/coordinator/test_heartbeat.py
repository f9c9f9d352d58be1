"""The heartbeat goes on whatever happens, and says when it matters."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sharedllm.nodes.coordinator import CoordinatorClient, Heartbeat
from sharedllm.nodes.errors import CoordinatorAway, NotAdmitted
from sharedllm.nodes.identity import Authority, enrol, server_context

DEADLINE_S = 10.0


class Scripted:
    """A client whose answers are written down; the last one is repeated."""

    def __init__(self, *answers: dict[str, Any] | Exception, renew_in_s: float = 100.0) -> None:
        self.answers, self.beats, self.renewals, self.left = list(answers), 0, 0, 0
        self.identity = dataclasses.make_dataclass("Identity", ["peer"])(self)
        self._renew_in_s = renew_in_s

    def renew_in_s(self, now: float) -> float:
        return self._renew_in_s

    def heartbeat(self, report: dict[str, Any], *, deadline_s: float) -> dict[str, Any]:
        answer = self.answers[min(self.beats, len(self.answers) - 1)]
        self.beats += 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    def renew(self, *, deadline_s: float) -> None:
        self.renewals += 1

    def leave(self, *, deadline_s: float) -> None:
        self.left += 1


OK = {"lease_s": 0.15, "revoked": [], "paused": False, "relay": None}


@pytest.fixture
def beating() -> Iterator[Callable[..., Heartbeat]]:
    started = []

    def start(client: Scripted, report: Callable[[], Any] = dict, **more: Any) -> Heartbeat:
        heartbeat = Heartbeat(client, report, more.pop("on_reply", lambda reply: None), **more)  # type: ignore[arg-type]
        heartbeat.lease_s = 0.15
        heartbeat.start()
        started.append(heartbeat)
        return heartbeat

    yield start
    for heartbeat in started:
        heartbeat.stop()


def test_each_answer_is_passed_on(beating: Any) -> None:
    seen = threading.Event()
    heartbeat = beating(Scripted(OK), on_reply=lambda reply: reply["lease_s"] == 0.15 and seen.set())
    assert seen.wait(DEADLINE_S)
    assert heartbeat.up


def test_an_absent_coordinator_is_tried_again(beating: Any) -> None:
    heartbeat = beating(Scripted(CoordinatorAway("gone"), CoordinatorAway("gone"), OK))
    assert heartbeat.wait(DEADLINE_S)
    assert heartbeat.problem == ""


def test_a_report_that_raises_does_not_end_it(beating: Any) -> None:
    reports = iter([ZeroDivisionError()])

    def report() -> dict[str, Any]:
        for error in reports:
            raise error
        return {}

    assert beating(Scripted(OK), report).wait(DEADLINE_S)


def test_a_listener_that_raises_does_not_end_it(beating: Any) -> None:
    twice = threading.Semaphore(0)

    def fail(reply: dict[str, Any]) -> None:
        twice.release()
        raise ZeroDivisionError

    beating(Scripted(OK), on_reply=fail)
    assert twice.acquire(timeout=DEADLINE_S)
    assert twice.acquire(timeout=DEADLINE_S)


def test_a_revoked_node_is_told(beating: Any) -> None:
    told: list[str] = []
    seen = threading.Event()
    heartbeat = beating(
        Scripted(NotAdmitted("was revoked")), on_refused=lambda sentence: (told.append(sentence), seen.set())
    )
    assert seen.wait(DEADLINE_S)
    assert told[0] == "was revoked"
    assert not heartbeat.up


def test_a_certificate_is_renewed_when_it_is_time_and_not_with_every_beat(beating: Any) -> None:
    client, beats = Scripted(OK, renew_in_s=0.0), threading.Semaphore(0)
    beating(client, on_reply=lambda reply: beats.release())
    for _ in range(3):
        assert beats.acquire(timeout=DEADLINE_S)
    assert client.renewals == 1


def test_a_stop_gives_the_lease_back(beating: Any) -> None:
    client = Scripted(OK)
    heartbeat = beating(client)
    assert heartbeat.wait(DEADLINE_S)
    heartbeat.stop()
    assert client.left == 1


def test_a_change_is_reported_at_once(beating: Any) -> None:
    client, seen = Scripted({**OK, "lease_s": 900.0}), threading.Semaphore(0)
    heartbeat = beating(client, on_reply=lambda reply: seen.release())
    assert seen.acquire(timeout=DEADLINE_S)
    heartbeat.beat_now()
    assert seen.acquire(timeout=DEADLINE_S)


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[tuple[Authority, str, list[bytes]]]:
    """A worker of the federation that answers in the coordinator's place, and what it was sent."""
    authority = Authority.load_or_create(tmp_path / "ca")
    context = server_context(enrol(authority, tmp_path / "bad", "worker"), client_certificates="optional")
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        try:
            plain, _ = listener.accept()
            with plain, context.wrap_socket(plain, server_side=True) as tls:
                tls.settimeout(DEADLINE_S)
                received.append(tls.recv(65_536))
        except (OSError, ssl.SSLError):
            received.append(b"")

    thread = threading.Thread(target=answer)
    thread.start()
    yield authority, f"https://127.0.0.1:{listener.getsockname()[1]}", received
    thread.join(DEADLINE_S)
    listener.close()


def test_a_node_that_poses_as_the_coordinator_gets_no_byte(
    impostor: tuple[Authority, str, list[bytes]], tmp_path: Path
) -> None:
    authority, url, received = impostor
    client = CoordinatorClient(enrol(authority, tmp_path / "good", "worker"), url)
    with pytest.raises(NotAdmitted, match="is not its coordinator"):
        client.status(deadline_s=5)
    client.close()
    until_s = time.monotonic() + DEADLINE_S
    while not received and time.monotonic() < until_s:
        time.sleep(0.01)
    assert received == [b""]


def test_another_federations_coordinator_is_not_ours(served: Any, tmp_path: Path) -> None:
    stranger = enrol(Authority.load_or_create(tmp_path / "other"), tmp_path / "node", "worker")
    client = CoordinatorClient(stranger, served.url)
    with pytest.raises(NotAdmitted, match="is not this federation's coordinator"):
        client.status(deadline_s=5)
    client.close()


def test_a_renewed_certificate_is_shown_by_the_same_client(served: Any) -> None:
    client = served.client("worker", "renewed")
    client.status()
    before = client.identity.certificate
    client.renew()
    assert client.identity.certificate != before
    assert client.status()["lease_s"] == 9
