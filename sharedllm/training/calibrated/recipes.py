"""How much calibration a model gets: measured efforts for a small and for a large one, and what export calls.

On SmolLM2-135M one core takes 6 CPU-minutes for the layers and 5 CPU-seconds for a step of learning. There
scales and gains alone are learnt: its 106 million trits, once they move, first lose what feeding errors back
had tuned (1.47 nats from the full model on validation text became 1.67 in twenty steps), and a CPU hasn't the
hours to find it again. A small model's trits find it in minutes (toy: 0.111 became 0.078).
"""

from __future__ import annotations

from sharedllm.model import Transformer
from sharedllm.store import Loaded, Progress
from sharedllm.store.ternary import Weight
from sharedllm.training.calibrated.quantise import Effort, quantise
from sharedllm.training.calibrated.repair import Budget
from sharedllm.training.calibrated.texts import base_texts

__all__ = ["LARGE", "SMALL", "TOKENS_PER_DOMAIN", "calibrated", "effort_for", "planes"]

TOKENS_PER_DOMAIN = 200_000
SMALL = Effort(
    windows=64,
    gains=Budget(65_536, (0.003, 0.01, 0.03), batch=4, validation=8192),
    trits=Budget(262_144, (0.003, 0.01, 0.03), batch=4, validation=8192),
)
LARGE = Effort(
    windows=48,
    gains=Budget(16_384, (0.003, 0.01), batch=2, validation=2048),
    trits=Budget(40_960, (0.005,), batch=2, validation=2048),
    bf16=True,
)
_LARGE_PARAMETERS = 50_000_000


def effort_for(model: Transformer) -> Effort:
    """Give the effort that suits a model's size."""
    return LARGE if sum(weight.numel() for weight in model.parameters()) > _LARGE_PARAMETERS else SMALL


def calibrated(base: Loaded, progress: Progress | None = None) -> dict[str, Weight]:
    """Turn a model into one plane of trits, calibrated on the base domains' training text.

    Learns scales and gains; of a small model trits, too. Raises what ``quantise`` and fetching text raise.
    """
    return _by("rescaled" if effort_for(base.model) is LARGE else "calibrated", base, progress)


def planes(base: Loaded, progress: Progress | None = None) -> dict[str, Weight]:
    """Turn a model into two planes of trits, calibrated likewise."""
    return _by("planes", base, progress)


def _by(scheme: str, base: Loaded, progress: Progress | None) -> dict[str, Weight]:
    texts = base_texts(base.tokenizer, TOKENS_PER_DOMAIN)
    return quantise(base, texts, scheme, effort_for(base.model), progress=progress).weights
