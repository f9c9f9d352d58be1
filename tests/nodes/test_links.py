"""Workers behind slow, cut and closed links."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharedllm.nodes.local import Federation
from tests.nodes.emulated import EmulatedLink, far_worker, some_port
from tests.nodes.harness import Network, within

pytestmark = pytest.mark.slow


def test_a_cut_cable_does_not_change_the_sentence(tmp_path: Path, undisturbed: str) -> None:
    with Federation(
        tmp_path, model="toy", workers=1, spread=2, port=0, coordinator_port=0, threads=1
    ) as here:
        port = some_port()
        with EmulatedLink(("127.0.0.1", port), rtt_s=0.004) as link:
            far_worker(here, "far", f"127.0.0.1:{link.port}", port)
            network = Network(here)
            here.await_pipeline(60)
            within(60, lambda: "far" in [span["name"] for span in network.state()["spans"]])
            told = network.tell(link.cut)
            assert told.text == undisturbed
            assert [span["name"] for span in network.state()["spans"]] == ["worker-1"]
            network.client.close()


def test_a_worker_without_an_open_port_is_reached_through_a_volunteers_relay(
    tmp_path: Path, undisturbed: str
) -> None:
    with Federation(
        tmp_path, model="toy", workers=0, spread=2, port=0, coordinator_port=0, threads=1
    ) as here:
        far_worker(here, "volunteer", None, some_port(), ["--relay"])
        far_worker(here, "hidden", f"127.0.0.1:{some_port()}", some_port())
        network = Network(here)
        within(90, lambda: {s["name"]: s["path"] for s in network.state()["spans"]}.get("hidden") == "relay")
        assert network.tell().text == undisturbed
        network.client.close()
