"""Long work says how far it is, also where stderr is a file."""

from __future__ import annotations

import time

import pytest

from sharedllm.cli import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    return now_s


def test_a_line_comes_every_fifteen_seconds_with_rate_and_remaining_time(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.learning() as report:
        for done in range(0, 101):
            report(f"learning at 3e-03, 4.{done:02d} nats, 10 tok/s", 10 * done, 1000)
            clock[0] += 1.0
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 100 // 15
    assert said.err.splitlines()[1] == "learning at 3e-03, 4.30 nats, 10 tok/s, 30%, 0:01:10 left"


def test_bytes_are_said_with_their_unit_and_each_thing_has_its_own_rate(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.showing() as report:
        for what, each in (("Fetching it", 1_000_000), ("Converting it", 500_000)):
            for done in range(21):
                report(what, done * each, 40 * each)
                clock[0] += 1.0
    assert capsys.readouterr().err.splitlines() == [
        "Fetching it, 15.0 MB of 40.0 MB, 1.0 MB/s, 0:00:25 left",
        "Converting it, 4.5 MB of 20.0 MB, 500.0 kB/s, 0:00:31 left",
    ]


def test_what_takes_less_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.showing() as report:
        for done in range(15):
            report("Fetching it", done, None)
            clock[0] += 1.0
    assert capsys.readouterr().err == ""


def test_a_total_that_is_not_known_leaves_the_remaining_time_out(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.showing() as report:
        report("Fetching it", 0, None)
        clock[0] += 20.0
        report("Fetching it", 40_000, None)
    assert capsys.readouterr().err == "Fetching it, 40.0 kB, 2.0 kB/s\n"
