"""From documents to an adapter and a verdict, on a small random base with a byte for a token."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math

import pytest
import torch

from sharedllm.adapters import METHODS, Adapter, applied
from sharedllm.adapters.personal import Personal, Plan, fit_text, report, verdict
from sharedllm.adapters.personal import search as search_module
from sharedllm.corpus import Document
from sharedllm.errors import BadAdapter, BadText
from sharedllm.model import Config, Transformer
from sharedllm.store import Loaded, Manifest

PLAN = Plan(window=32, passes=1.0, least_steps=12, most_steps=24, validation_tokens=256, test_tokens=512)


class Bytes:
    """A token for each byte, folded into a small vocabulary."""

    def encode(self, text: str) -> list[int]:
        return [byte % 61 for byte in text.encode()]


@pytest.fixture(scope="module")
def small() -> Loaded:
    torch.manual_seed(0)
    config = Config(
        vocab_size=61, width=16, layers=2, heads=2, kv_heads=2, head_width=8, hidden=24, context=64
    )
    model = Transformer(config).eval()
    with torch.no_grad():
        model.embed.weight.mul_(20)
    manifest = Manifest("small", config, "t" * 64, "b" * 64, {}, "F32", "none", {})
    return Loaded(model, Bytes(), manifest)  # type: ignore[arg-type]


def documents(text: str, count: int = 30) -> list[Document]:
    made = []
    for i in range(count):
        whole = f"{i} {text}"
        made.append(
            Document(str(i), str(i), whole, "own", len(whole), hashlib.sha256(whole.encode()).hexdigest())
        )
    return made


HABIT = "the same words again and again, " * 5


@pytest.fixture(scope="module")
def habitual(small: Loaded) -> Personal:
    return fit_text(small, documents(HABIT), plan=PLAN)


@pytest.mark.parametrize("method", METHODS)
def test_a_habit_is_learnt_and_the_report_says_that_it_helped(small, method):
    made = fit_text(small, documents(HABIT), method=method, plan=PLAN)
    assert made.gain.helped
    assert report(made)[0].endswith("it helped.")
    assert made.adapter.method == method


def test_the_base_stays_bit_for_bit(small):
    before = {name: weight.detach().clone() for name, weight in small.model.named_parameters()}
    fit_text(small, documents(HABIT), plan=PLAN)
    assert all(torch.equal(before[name], weight) for name, weight in small.model.named_parameters())


def test_the_same_text_gives_the_same_adapter(small, habitual):
    one, two = habitual, fit_text(small, documents(HABIT), plan=PLAN)
    assert all(torch.equal(one.adapter.tensors[n], two.adapter.tensors[n]) for n in one.adapter.tensors)
    assert one.gain == two.gain


def test_what_is_judged_is_the_adapter_as_its_file_holds_it(small):
    made = fit_text(small, documents(HABIT), precision="int8", plan=PLAN)
    for tensor in made.adapter.tensors.values():
        steps = tensor / (tensor.abs().max() / 127)
        assert torch.allclose(steps, steps.round(), atol=1e-3)


def test_noise_is_not_said_to_have_helped(small):
    generator = torch.Generator().manual_seed(3)
    noise = [
        "".join(chr(33 + int(i)) for i in torch.randint(61, (160,), generator=generator)) for _ in range(30)
    ]
    given = [dataclasses.replace(d, text=t) for d, t in zip(documents(HABIT), noise, strict=True)]
    untaught = Transformer(small.model.config).eval()  # its tied logits are near 0: already the best on noise
    made = fit_text(Loaded(untaught, small.tokenizer, small.manifest), given, plan=PLAN)
    assert made.gain.nats < 0.02


def test_held_out_text_chooses_nothing(small, habitual):
    given, made = documents(HABIT), habitual
    from sharedllm.adapters.personal import split

    held = {d.id for d in split(given).test}
    other = [dataclasses.replace(d, text=d.text.upper()) if d.id in held else d for d in given]
    again = fit_text(small, other, plan=PLAN)  # the split goes by the hash, which is as before
    assert all(torch.equal(made.adapter.tensors[n], again.adapter.tensors[n]) for n in made.adapter.tensors)


def test_a_search_whose_rates_all_diverge_keeps_the_base(small, monkeypatch):
    monkeypatch.setitem(search_module.CENTRES, "norm", 1e30)
    made = fit_text(small, documents(HABIT), plan=PLAN)
    assert all(not tensor.any() for tensor in made.adapter.tensors.values())
    assert "It did not help." in verdict(made.about())


def test_the_search_goes_on_while_the_best_rate_is_at_the_edge(small, monkeypatch):
    monkeypatch.setitem(search_module.CENTRES, "norm", 1e-4)
    made = fit_text(small, documents(HABIT), plan=PLAN)
    assert len(made.found.trials) == 5


def test_progress_ends_at_all_of_the_work(small):
    told: list[tuple[str, int, int | None]] = []
    fit_text(small, documents(HABIT), plan=PLAN, progress=lambda *what: told.append(what))
    done = [at for _, at, _ in told]
    assert done == sorted(done)
    assert all(at <= total for _, at, total in told)
    assert "tok/s" in told[-1][0]


def test_what_is_said_of_an_adapter_is_json_without_text_or_names(small):
    given = [dataclasses.replace(d, id=f"/home/me/secret-{d.id}.txt") for d in documents(HABIT)]
    said = json.dumps(fit_text(small, given, plan=PLAN).about())
    assert "secret" not in said
    assert "again" not in said


def test_rounding_costs_are_measured_for_every_precision(habitual):
    assert habitual.rounding_nats.keys() == {"fp32", "fp16", "int8"}
    assert habitual.rounding_nats["fp32"] == 0.0
    assert all(math.isfinite(nats) for nats in habitual.rounding_nats.values())


def test_the_gain_is_that_of_the_adapter_on_held_out_text(small, habitual):
    from sharedllm.adapters.personal import split
    from sharedllm.adapters.personal.gain import excerpt_nats
    from sharedllm.corpus import excerpts

    test = excerpts(small.tokenizer.encode, split(documents(HABIT)).test, 512, 32)
    before = torch.cat(excerpt_nats(small.model, test))
    with applied(small.model, Adapter("norm", "b" * 64, habitual.adapter.tensors)):
        after = torch.cat(excerpt_nats(small.model, test))
    assert habitual.gain.nats == pytest.approx(float((before - after).mean()), abs=1e-5)


def test_too_little_text_is_refused_with_how_much_is_needed(small):
    with pytest.raises(BadText, match=r"has 810 tokens in 5 documents; .* takes 2,000. Give about 3 kB"):
        fit_text(small, documents(HABIT, 5), plan=PLAN)


def test_an_unknown_method_and_precision_are_refused(small):
    with pytest.raises(BadAdapter, match="no adapter method"):
        fit_text(small, documents(HABIT), method="prefix")
    with pytest.raises(BadAdapter, match="no precision"):
        fit_text(small, documents(HABIT), precision="int4")
