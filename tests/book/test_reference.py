"""The reference pages name what the code has: every field, kind and number, and none that is gone."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import files
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from sharedllm.adapters import AT_REST, METHODS
from sharedllm.attribution.receipts import Head
from sharedllm.model.config import Config
from sharedllm.nodes.gossip import Kind as Said
from sharedllm.nodes.gossip.entries import PAYLOAD_BYTES
from sharedllm.store.manifest import Manifest
from sharedllm.wire import DEFAULT_LIMITS, VERSION, Adapter, Kind, Op

PAGES = Path(__file__).resolve().parents[2] / "book" / "reference"


def rows(page: str, caption: str) -> dict[str, list[str]]:
    """The cells behind each row's header, of the one table whose caption begins so."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    found = [
        table
        for block in text.split("```{raw} html\n")[1:]
        for table in BeautifulSoup(block.split("```")[0], "html.parser").find_all("table")
        if table.caption.get_text().startswith(caption)
    ]
    (table,) = found
    return {
        row.th.get_text(): [cell.get_text() for cell in row.find_all("td")]
        for row in table.select("tbody tr")
    }


def named(table: dict[str, list[str]]) -> set[str]:
    return {name for header in table for name in header.split(", ")}


def test_the_manifests_page_has_every_field() -> None:
    assert named(rows("manifest", "The body.")) == {f.name for f in dataclasses.fields(Manifest)} | {"schema"}
    assert named(rows("manifest", "The shape")) == {f.name for f in dataclasses.fields(Config)}


def test_the_manifests_page_agrees_with_the_schema() -> None:
    schema = json.loads(files("sharedllm.store.specialists").joinpath("manifest.schema.json").read_text())
    body = schema["properties"]["body"]["properties"]
    assert named(rows("manifest", "The envelope.")) == set(schema["properties"])
    assert named(rows("manifest", "The body.")) == set(body)
    assert named(rows("manifest", "The shape")) == set(body["config"]["properties"])


def test_the_adapters_page_has_every_method_and_precision() -> None:
    assert named(rows("adapters", "Tensors")) == set(METHODS)
    text = (PAGES / "adapters.md").read_text(encoding="utf-8")
    assert all(f'<th scope="col">{precision}</th>' in text for precision in AT_REST)


def test_the_receipts_page_has_every_field_of_a_head() -> None:
    assert named(rows("receipts", "The head")) == {f.name for f in dataclasses.fields(Head)}


@pytest.mark.parametrize(
    ("caption", "kinds"), [("Kinds of frames.", Kind), ("Operations of a step", Op)], ids=["frames", "steps"]
)
def test_the_wires_page_numbers_every_kind(caption: str, kinds: type[Kind] | type[Op]) -> None:
    assert {name: int(cells[0]) for name, cells in rows("wire", caption).items()} == {
        kind.name: kind.value for kind in kinds
    }


def test_the_wires_page_has_versions_limits_and_the_adapters_fields() -> None:
    header = rows("wire", "A frame")
    assert header["2"] == [f"version of the protocol: {VERSION}"]
    assert header["4–7"][0].endswith(f"{DEFAULT_LIMITS.meta_bytes:,}")
    assert header["8–11"][0].endswith(f"{DEFAULT_LIMITS.body_bytes:,}")
    assert named(rows("wire", "The meta of ADAPTER")) == {f.name for f in dataclasses.fields(Adapter)}


def test_the_wires_page_has_every_kind_of_statement_with_its_ceiling() -> None:
    assert {
        name: cells[1].rsplit("; ")[-1] for name, cells in rows("wire", "Kinds of statements").items()
    } == {kind.name: f"{PAYLOAD_BYTES[kind]:,}" for kind in Said}
