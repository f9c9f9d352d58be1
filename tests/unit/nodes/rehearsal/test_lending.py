"""A ring over real connections lends adapters to all of its workers, or says who did not take them."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sharedllm import store
from sharedllm.adapters import Adapter, applied
from sharedllm.engines import Ends
from sharedllm.errors import BadAdapter
from sharedllm.nodes.primary.ring import Down, Ring
from sharedllm.nodes.rehearsal import Plan, Rehearsal
from sharedllm.wire import Codec, Frame, Kind, Op, Segment, StepMeta, Want, decode, encode

THIRDS: Plan = [("first", 0, 1), ("middle", 1, 3), ("last", 3, 4)]
SOON_S = 20.0
TOKENS = tuple(range(50, 70))


class Turned:
    """A ring that the test turns itself, beside the rehearsal's loop."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.workers = rehearsal.workers
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        model = rehearsal.loop.model
        self.ends: Ends = model.ends
        self.ring = Ring(rehearsal.loop.routes.choose(), self.events)
        self.ring.open(rehearsal._connect, model.name, model.hash, {})

    def lend(self, number: int, delta: dict[str, Tensor] | None) -> None:
        """Lend, and wait until the ring says that all have it."""
        said: list[int] = []
        self.ring.lend(number, delta, lambda: said.append(number))
        self.events.get(timeout=SOON_S)()
        assert said == [number]

    def send(self, *segments: Segment) -> None:
        h_RD = self.ends.embed(TOKENS[: sum(s.rows for s in segments)])
        meta = StepMeta(segments, Codec.FP32, h_RD.shape[1], len(h_RD)).to_bytes()
        self.ring.send(Frame(Kind.STEP, self.ring.epoch, 1, meta, encode(h_RD, Codec.FP32)))

    def step(self, *segments: Segment) -> Tensor:
        self.send(*segments)
        _, frame, _ = self.events.get(timeout=SOON_S)
        back = StepMeta.from_bytes(frame.meta)
        return decode(frame.body, back.codec, back.rows, back.width)


@pytest.fixture
def turned() -> Iterator[Turned]:
    with Rehearsal("toy", [THIRDS]) as rehearsal:
        made = Turned(rehearsal)
        yield made
        made.ring.close()


def delta() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    gains = store.load("toy").model.gains()
    return {name: 0.5 * torch.randn(gain.shape, generator=generator) for name, gain in gains.items()}


def test_all_workers_wear_what_was_lent(turned: Turned) -> None:
    turned.lend(9, delta())
    h_RD = turned.step(Segment(Op.WEAR, 1, source=9), Segment(Op.CHUNK, 1, 0, len(TOKENS), Want.ALL))
    gains_RD = (turned.ends.gain_D + delta()["norm.weight"]).expand(len(TOKENS), -1)
    loaded = store.load("toy")
    adapter = Adapter("norm", loaded.manifest.weights_sha256, delta())
    with applied(loaded.model.eval(), adapter) as adapted, torch.inference_mode():
        expected = adapted(torch.tensor([TOKENS]))[0]
    torch.testing.assert_close(turned.ends.logits(h_RD, gains_RD), expected, atol=1e-3, rtol=1e-3)
    assert turned.ring.adapters > 100


def test_what_was_forgotten_can_not_be_worn(turned: Turned) -> None:
    turned.lend(9, delta())
    turned.lend(9, None)
    turned.send(Segment(Op.WEAR, 1, source=9), Segment(Op.CHUNK, 1, 0, 5, Want.ALL))
    down = turned.events.get(timeout=SOON_S)
    assert isinstance(down, Down)
    assert "Adapter 9 was not lent to this pipeline" in down.sentence


def test_a_worker_that_is_gone_is_named(turned: Turned) -> None:
    turned.workers["middle"].kill()
    turned.ring.lend(9, delta(), lambda: None)
    down = turned.events.get(timeout=SOON_S)
    assert isinstance(down, Down)
    assert down.node == turned.workers["middle"].identity.id


def test_nothing_goes_on_in_a_ring_that_was_closed(turned: Turned) -> None:
    said: list[str] = []
    turned.ring.lend(9, delta(), lambda: said.append("went on"))
    then = turned.events.get(timeout=SOON_S)
    turned.ring.close()
    then()
    assert said == []


def test_gains_that_do_not_fit_are_refused_before_anything_is_sent(turned: Turned) -> None:
    with pytest.raises(BadAdapter, match=r"blocks\.3\.attention_norm\.weight is missing"):
        turned.ring.lend(1, {k: v for k, v in delta().items() if "blocks.3" not in k}, lambda: None)
    turned.lend(1, delta())
