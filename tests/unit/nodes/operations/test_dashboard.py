"""The dashboard draws what is measured, all of it, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sharedllm.nodes import operations
from sharedllm.nodes.operations import metrics

DASHBOARD = json.loads((Path(operations.__file__).parent / "grafana.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
DRAWN = {name for query in QUERIES for name in re.findall(r"\bsharedllm_\w+", query)}
# a histogram is drawn if any of its series is
FAMILIES = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics.names()}


def test_every_name_in_a_query_is_measured() -> None:
    assert DRAWN - metrics.names() == set()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_everything_measured_is_drawn(family: str) -> None:
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in DRAWN} >= {family}


def test_counters_are_drawn_as_rates_only() -> None:
    for query in QUERIES:
        for name in re.findall(r"\bsharedllm_\w+_(?:total|bucket|sum|count)\b", query):
            assert re.search(rf"(rate|increase)\({name}\[", query), query


def test_panels_have_titles_descriptions_and_places_of_their_own() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["title"] and panel["description"] for panel in PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_data_source_is_a_choice() -> None:
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
