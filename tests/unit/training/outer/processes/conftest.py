"""Joint trainings of a model of a few thousand weights, in real processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sharedllm.training import Streams
from sharedllm.training.outer.processes import Crew, Event, Settings, host, listen
from tests.unit.training.conftest import TINY, TINY_CONFIG, counted

Choose = Callable[..., Settings]


def tiny_settings(**changes: Any) -> Settings:
    """Three rounds of two steps by two workers, unless changed."""
    fields: dict[str, Any] = {
        "base": "tiny",
        "config": TINY_CONFIG,
        "text_sha256": counted().sha256,
        "seed": 0,
        "workers": 2,
        "rounds": 3,
        "inner_steps": 2,
        "shards": "mixed",
        "codec": "fp32",
        "rule": "mean",
        "liars": 0,
        "outer_lr": 0.7,
        "outer_momentum": 0.9,
        "patience_s": 20.0,
    } | changes
    steps = fields["rounds"] * fields["inner_steps"]
    fields.setdefault("recipe", dataclasses.replace(TINY, tokens=TINY.tokens_per_step * steps))
    return Settings(**fields)


@dataclasses.dataclass
class Told:
    """All that the workers of a training said."""

    events: list[Event]

    def of(self, kind: str, worker: int | None = None) -> list[Event]:
        """The events of one kind, of one worker or all."""
        return [
            event for event in self.events if event["event"] == kind and worker in (None, event["worker"])
        ]

    def ends(self) -> dict[int, str]:
        """The hash of the state that each worker ended with, of those that came to the end."""
        return {event["worker"]: event["sha256"] for event in self.of("done")}

    def losses(self) -> list[float]:
        """The loss of each round, as the first who told it did."""
        by_round = {event["round"]: event["loss_nats"] for event in reversed(self.of("round"))}
        return [by_round[round_] for round_ in sorted(by_round)]


def told(
    settings: Settings,
    folder: Path,
    react: Callable[[Event, Crew], object] = lambda event, crew: None,
    liars: Mapping[int, str] | None = None,
    **how: Any,
) -> Told:
    """Run a training to its end, letting ``react`` interfere after each event."""
    streams: Streams = counted()
    events = []
    store = host(settings, listen("127.0.0.1", 0))
    numbers = range(settings.workers)
    with Crew(settings, streams, folder, store=store, numbers=numbers, liars=liars, **how) as crew:
        for event in crew.events():
            events.append(event)
            react(event, crew)
    return Told(events)


@pytest.fixture
def choose() -> Choose:
    return tiny_settings
