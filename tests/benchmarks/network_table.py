"""What was asked of the network and what was measured, a line each."""

from __future__ import annotations

import statistics
from typing import Any

from rich.table import Table

__all__ = ["table"]

Row = tuple[str, str, str]


def table(found: dict[str, Any]) -> Table:
    """The whole table."""
    load = f"load {found['load']:.1f} → {found['load_after']:.1f}"
    drawn = Table(title=f"{found['model']}, {found['threads']} threads a process, {load}")
    for head in ("", "asked", "measured"):
        drawn.add_column(head)
    rows = [*_speeds(found), *_losses(found), *_links(found), *_proxy(found["splice"])]
    for row in [*rows, *_roundings(found["rounding"])]:
        drawn.add_row(*row)
    return drawn


def _speeds(found: dict[str, Any]) -> list[Row]:
    speed, ratio, first = found["tok_per_s"], found["ratio"], found["first_ratio"]
    all_three = " · ".join(f"{speed[kind]:.1f}" for kind in ("plain", "packed", "network"))
    memory = found["memory"]
    return [
        ("decode, tok/s: generate · engine alone · network", "", all_three),
        ("network / generate in one process", "≥ 0.95", f"{ratio['plain']:.3f}"),
        ("network / engine alone in one process", "≥ 0.95", f"{ratio['packed']:.3f}"),
        ("first token / generate · engine alone", "≤ 1.15", f"{first['plain']:.3f} · {first['packed']:.3f}"),
        (
            "8 streams, total / one",
            "≥ 3",
            f"{found['eight_ratio']:.2f} ({found['eight_tok_per_s']:.1f} tok/s)",
        ),
        ("idle worker beside weights, own pages", "≤ 350 MB", f"{memory['beside_mb']:.0f} MB"),
        ("  … with pages shared with files", "", f"{memory['resident_beside_mb']:.0f} MB"),
        ("one stream, of the floor", "", f"{found['floor_percent']:.0f} %"),
    ]


def _losses(found: dict[str, Any]) -> list[Row]:
    rows = []
    for how, most in (("kill", "≤ 2 s"), ("freeze", "≤ 5 s")):
        these = [one for one in found["losses"] if one["how"] == how]
        beyond = [one["beyond_recompute_s"] for one in these]
        same = sum(one["same_text"] for one in these)
        said = f"{statistics.median(beyond):.2f} · {max(beyond):.2f} s; same text {same} of {len(these)}"
        rows.append((f"{how}: next token beyond recomputing, median · worst", most, said))
    return rows


def _links(found: dict[str, Any]) -> list[Row]:
    return [
        (
            f"two links of {one['rtt_ms']} ms round trip",
            "",
            f"{one['tok_per_s']:.2f} tok/s, {one['percent_of_floor']:.0f} % of {one['floor_tok_per_s']:.2f}",
        )
        for one in found["wan"]
    ]


def _proxy(found: dict[str, float]) -> list[Row]:
    share = f"{100 * found['share']:.0f} % of bare TLS"
    trips = f"{found['bare_us']:.0f} → {found['proxied_us']:.0f} µs"
    return [
        ("proxy, one way", "≥ 1 GB/s or 70 %", f"{found['proxied_bytes_per_s'] / 1e9:.2f} GB/s, {share}"),
        ("proxy, round trip of 1.2 kB beside bare TLS", "", trips),
    ]


def _roundings(found: dict[str, Any]) -> list[Row]:
    return [
        (f"activations as {name}, loss against fp32", "", f"{bits:+.5f} bits/byte ({found['tokens']} tokens)")
        for name, bits in found["bits_per_byte_lost"].items()
    ]
