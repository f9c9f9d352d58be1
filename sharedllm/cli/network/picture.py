"""A federation's status as tables: every state is a word, and colour only repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sharedllm.nodes.operations import format_bytes, format_duration

__all__ = ["picture"]

_STYLES = {"up": "green", "draining": "yellow", "paused": "yellow", "banned": "red", "gone": "red"}
Facts = Mapping[str, Any]


def picture(status: Facts) -> RenderableType:
    """Draw what ``GET /v1/status`` answers."""
    parts: list[RenderableType] = [_nodes(status["nodes"])]
    if any(not span["measured"] for node in status["nodes"] for span in node["spans"]):
        parts.append(Text("≈ estimated, not measured yet"))
    parts += [_remark(node["name"], node["sentence"]) for node in status["nodes"] if node["sentence"]]
    parts += [_remark(node["name"], _audit(node["audit"])) for node in status["nodes"] if node.get("audit")]
    for pipeline in status["pipelines"]:
        parts += ["", *_pipeline(pipeline)]
    if not status["pipelines"]:
        parts.append(Text("\nNo pipeline is in use."))
    if status["revoked"]:
        parts.append(_remark("revoked", ", ".join(identifier[:8] for identifier in status["revoked"])))
    return Group(*parts)


def _nodes(nodes: list[Facts]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("node", overflow="fold")
    table.add_column("state", no_wrap=True)
    for column in ("layers", "per layer", "memory", "traffic"):
        table.add_column(column, justify="right", no_wrap=True)
    for node in nodes:
        lease = f"{format_duration(node['lease_left_s'])} left" if node["lease_left_s"] else ""
        table.add_row(
            Text(f"{node['name']}\n{node['role']} {node['short']}"),
            Text.assemble((node["state"], _STYLES.get(node["state"], "")), f"\n{lease}"),
            "\n".join(f"{span['start']}–{span['stop'] - 1}" for span in node["spans"]),
            "\n".join(_speed(span) for span in node["spans"]),
            _memory(node),
            _traffic(node),
        )
    return table


def _pipeline(pipeline: Facts) -> list[RenderableType]:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("node", no_wrap=True)
    for column in ("layers", "hop to it", "computes"):
        table.add_column(column, justify="right")
    for span in pipeline["spans"]:
        layers = f"{span['start']}–{span['stop'] - 1}"
        table.add_row(Text(span["name"]), layers, f"{span['hop_ms']:.2f} ms", f"{span['compute_ms']:.2f} ms")
    remarks: list[RenderableType] = [
        _remark(name, f"left out: {sentence}") for name, sentence in pipeline["left_out"]
    ]
    if pipeline["note"]:
        remarks.append(Text(pipeline["note"]))
    return [Text(_headline(pipeline)), table, *remarks]


def _headline(pipeline: Facts) -> str:
    """Say how fast the pipeline is beside how fast it could be."""
    who = f"{pipeline['model']} for {pipeline['primary_name']}"
    if pipeline["token_s"] is None:
        return f"{who}: {1000 * pipeline['predicted_token_s']:.1f} ms a token predicted, none measured yet"
    return (
        f"{who}: {pipeline['tokens_per_s']:.1f} tokens/s, {1000 * pipeline['token_s']:.1f} ms a token, "
        f"{pipeline['floor_percent']:.0f} % of the floor's speed ({1000 * pipeline['floor_s']:.1f} ms)"
    )


def _speed(span: Facts) -> str:
    if span["s_per_layer"] is None:
        return "?"
    return f"{'' if span['measured'] else '≈ '}{1000 * span['s_per_layer']:.2f} ms"


def _memory(node: Facts) -> str:
    if not node.get("memory_bytes"):
        return ""
    used = node.get("weights_bytes", 0) + node.get("kv_bytes", 0)
    return f"{format_bytes(used)}\nof {format_bytes(node['memory_bytes'])}"


def _traffic(node: Facts) -> str:
    traffic = node.get("traffic") or {"in_bytes": 0, "out_bytes": 0}
    if not traffic["in_bytes"] + traffic["out_bytes"]:
        return ""
    return f"in {format_bytes(traffic['in_bytes'])}\nout {format_bytes(traffic['out_bytes'])}"


def _audit(log: Facts) -> str:
    """What receipts of this primary are verified with: ``sharedllm receipt verify FILE --log-key KEY``."""
    unaudited = f"; {log['unaudited']:,} answers are not in it" if log["unaudited"] else ""
    return f"audit log of {log['size']:,} entries{unaudited}; its key is {log['key']}"


def _remark(name: str, sentence: str) -> Text:
    return Text(f"{name}: {sentence}")
