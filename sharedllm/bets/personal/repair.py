"""What a base's own adapters, other authors', a word list and noise do on it: the arms that tell repair from
personalisation.

Repair is what other authors' adapters of the same base do for an author's text, personal what the own one
does beyond that; both add up to its gain. *Covered*: adapters as they come back from a file. *Not covered*:
an adapter fitted on another base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sharedllm import adapters
from sharedllm.bets.losses import Losses
from sharedllm.bets.personal.circle import Circle

__all__ = ["repair_losses"]

_Arm = Callable[[str], list[adapters.Adapter | None]]


def repair_losses(
    circle: Circle, seeds: Sequence[int], control_seeds: Sequence[int], at_rest: Sequence[str]
) -> Losses:
    """Score a circle under its adapters: ``base``, ``own``, ``others``, ``words`` (unigram), ``random``.

    ``own`` and ``others`` are means over ``seeds``; each seed's stand beside them as ``own 0``, ``others 0``
    and so on, and the own ones as read from a file of each precision as ``own int8``. Controls are fitted
    with ``control_seeds``, the word list with the first of them.
    """

    def own(precision: str, chosen: Sequence[int]) -> _Arm:
        return lambda user: [adapters.rounded(circle.own(user, seed), precision) for seed in chosen]

    def others(chosen: Sequence[int]) -> _Arm:
        return lambda user: [adapter for seed in chosen for adapter in circle.others(user, seed)]

    return circle.losses(
        {
            "base": lambda user: [None],
            "own": own("fp32", seeds),
            "others": others(seeds),
            "words": lambda user: [circle.fit(user, "unigram", control_seeds[0]).adapter],
            "random": lambda user: [circle.random(user, seed).adapter for seed in control_seeds],
            **{f"own {precision}": own(precision, seeds) for precision in at_rest},
            **{f"own {seed}": own("fp32", [seed]) for seed in seeds},
            **{f"others {seed}": others([seed]) for seed in seeds},
        }
    )
