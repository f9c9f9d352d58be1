"""What a fit came to, in plain words: first whether it helped, then what that rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sharedllm.adapters.personal.fitting import Personal

__all__ = ["report", "verdict"]


def verdict(about: Mapping[str, Any]) -> str:
    """Say in one sentence what ``Personal.about`` says of the gain."""
    unit = "document" if "held_out_documents" in about else "section"
    nats, low, high = about["gain_nats"], about["gain_low_nats"], about["gain_high_nats"]
    where = f"On {about[f'held_out_{unit}s']} held-out {unit}s ({about['held_out_tokens']:,} tokens)"
    if low == high == 0:
        return f"{where} nothing changed: no step lowered the loss on validation text. It did not help."
    moved = "fell" if nats >= 0 else "rose"
    if nats < 0:
        nats, low, high = -nats, -high, -low
    before, after = about["base_nats"], about["base_nats"] - about["gain_nats"]
    sentence = (
        f"{where} the loss {moved} by {nats:.3f} nats per token, from {before:.3f} to {after:.3f} "
        f"(95 % interval {low:.3f} to {high:.3f}): "
    )
    if about["helped"]:
        return sentence + "it helped."
    return sentence + ("it did harm." if low > 0 else "that may be chance, so it did not clearly help.")


def report(made: Personal) -> list[str]:
    """Say all of it, a line each."""
    lines = [verdict(made.about())]
    if made.unit == "section":
        lines.append(
            "The held-out text is the last part of the same documents; others of yours may gain less."
        )
    lines.append(
        f"Learnt from {made.train_tokens:,} tokens; settings chosen on {made.validation_tokens:,} others; "
        f"{made.seconds:.0f} s."
    )
    if made.found is not None:
        tried = ", ".join(f"{trial.lr:.1e} ({trial.nats:.3f})" for trial in made.found.trials)
        lines.append(
            f"Learning rate {made.found.lr:.1e} of {tried}; "
            f"step {made.found.best_step} of {made.found.steps} was kept."
        )
    costs = ", ".join(f"{name} {nats:+.5f}" for name, nats in made.rounding_nats.items())
    lines.append(f"Kept as {made.precision}; rounding adds, in nats per token: {costs}.")
    return lines
