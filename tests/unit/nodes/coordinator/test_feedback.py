"""Measured speeds, failures and spares steer the next plan, and outlive a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from sharedllm.nodes.coordinator.pipelines import UnknownPipeline
from sharedllm.nodes.coordinator.schemas import PipelineReport, PipelineRequest
from sharedllm.nodes.coordinator.status import Coordinator
from sharedllm.nodes.identity import Authority

Wish = Callable[..., PipelineRequest]
P, Q = "0" * 31 + "1", "0" * 31 + "2"
A, B, C = "a" * 32, "b" * 32, "c" * 32
MODEL = "ab" * 32


def said(kind: str, worker: str | None = None, **fields: Any) -> PipelineReport:
    return PipelineReport.model_validate({"kind": kind, "worker": worker, **fields})


def used(reply: dict[str, Any]) -> set[str]:
    return {worker["node"] for worker in reply["workers"]}


def test_before_a_measurement_the_faster_memory_is_chosen(
    coordinator: Coordinator, wish: Wish, beat: Any
) -> None:
    beat(A, "attic", read_bytes_per_s=1e3)
    beat(B, "barn", read_bytes_per_s=1e3, share=0.5)
    assert used(coordinator.pipelines.open(P, wish())) == {A}
    assert coordinator.pipelines.open(P, wish())["token_s"] == pytest.approx(10 * 90 / 1e3, abs=0.05)


def test_a_measured_speed_replaces_the_estimate(coordinator: Coordinator, wish: Wish, beat: Any) -> None:
    beat(A, "attic", read_bytes_per_s=1e6)
    beat(B, "barn", read_bytes_per_s=1e3)
    first = coordinator.pipelines.open(P, wish())
    coordinator.pipelines.report(P, first["pipeline"], said("slow", A, speeds={A: 3.0}))
    assert used(coordinator.pipelines.open(P, wish())) == {B}


def test_speeds_are_smoothed_but_a_slow_worker_counts_at_once(
    coordinator: Coordinator, wish: Wish, two: Any
) -> None:
    id = coordinator.pipelines.open(P, wish())["pipeline"]
    coordinator.pipelines.report(P, id, said("ok", speeds={A: 1.0, B: 1.0}))
    coordinator.pipelines.report(P, id, said("slow", B, speeds={A: 2.0, B: 2.0}))
    assert coordinator.experience.measured(MODEL) == {A: pytest.approx(1.3), B: 2.0}


def test_a_speed_of_a_worker_that_is_not_in_the_pipeline_is_not_believed(
    coordinator: Coordinator, wish: Wish, two: Any
) -> None:
    id = coordinator.pipelines.open(P, wish())["pipeline"]
    coordinator.pipelines.report(P, id, said("ok", speeds={C: 1e-9}))
    assert coordinator.experience.measured(MODEL) == {}


def test_a_report_comes_from_the_pipelines_own_primary_alone(
    coordinator: Coordinator, wish: Wish, two: Any
) -> None:
    id = coordinator.pipelines.open(P, wish())["pipeline"]
    with pytest.raises(UnknownPipeline, match="has no pipeline"):
        coordinator.pipelines.report(Q, id, said("dead", A))
    with pytest.raises(UnknownPipeline, match="is not in pipeline"):
        coordinator.pipelines.report(P, id, said("dead", C))


def test_a_spare_comes_into_use_with_its_first_report(coordinator: Coordinator, wish: Wish, two: Any) -> None:
    two(C, "cellar", memory_bytes=500)
    reply = coordinator.pipelines.open(P, wish())
    lost, spare = min(reply["spares"].items())
    coordinator.pipelines.report(P, reply["pipeline"], said("dead", lost))
    coordinator.pipelines.report(P, spare["pipeline"], said("ok"))
    assert [row.id for row in coordinator.pipelines.in_use()] == [spare["pipeline"]]
    coordinator.pipelines.report(P, reply["pipeline"], said("ok"))
    assert [row.id for row in coordinator.pipelines.in_use()] == [spare["pipeline"]]


def test_a_closed_pipeline_is_gone_with_its_spares(coordinator: Coordinator, wish: Wish, two: Any) -> None:
    two(C, "cellar", memory_bytes=500)
    reply = coordinator.pipelines.open(P, wish())
    coordinator.pipelines.close(P, reply["pipeline"])
    assert coordinator.pipelines.in_use() == []
    for spare in reply["spares"].values():
        with pytest.raises(UnknownPipeline):
            coordinator.pipelines.report(P, spare["pipeline"], said("ok"))


def test_pipelines_bans_and_speeds_outlive_a_restart(
    coordinator: Coordinator, wish: Wish, engine: Engine, authority: Authority, two: Any, clock: Any
) -> None:
    two(C, "cellar", memory_bytes=500)
    reply = coordinator.pipelines.open(P, wish())
    coordinator.pipelines.report(P, reply["pipeline"], said("garbage", A, speeds={A: 1.0}))
    again = Coordinator(engine, authority, clock=clock)
    assert [row.id for row in again.pipelines.in_use()] == [reply["pipeline"]]
    assert again.experience.measured(MODEL) == {A: 1.0}
    assert used(again.pipelines.open(P, wish())) == {B, C}
