"""One vector from K workers' vectors of whom f may lie: ``aggregate(vectors_KP, "nnm+median", f)``.

A rule's name is any number of pre-aggregations and one rule, joined by "+".

| name | needs | survives |
|---|---|---|
| ``mean`` | one vector | no liar: one moves it anywhere |
| ``median``, ``trimmed_mean``, | | |
| ``geometric_median``, ``centered_clipping`` | n > 2f | f < n/2, with an error of its own |
| ``krum``, ``multi_krum`` | n > 2f + 2 | the same |
| ``nnm+`` any | n > 2f | the same, at the optimal order when honest vectors differ |
| ``bucketing+`` any | the above of ⌈n / bucket⌉ | the same |

A vector that holds NaN or infinity is set aside before anything else, and its sender is one of the f: with b
set aside, the rule runs on n − b vectors against f − b liars. More than f of them is refused (the rule was
promised fewer), except by the mean, which promises nothing.

*Covered*: what is refused, is refused before a number is touched or memory taken; one huge vector changes no
distance between two others. *Not covered*: f ≥ n/2, which no rule here survives (see ``gate``); liars who
stay inside the honest spread, whom no rule can tell from the honest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharedllm.errors import BadAggregate
from sharedllm.robust import columns, mixing, weights
from sharedllm.robust.vectors import Vectors, blocks, gram, held
from sharedllm.robust.weights import Clipping

__all__ = ["PREAGGREGATIONS", "RULES", "aggregate", "check_rule", "finite"]

RULES = ("mean", "median", "trimmed_mean", "geometric_median", "krum", "multi_krum", "centered_clipping")
PREAGGREGATIONS = ("nnm", "bucketing")
_BY_COLUMN = ("median", "trimmed_mean")


def aggregate(
    vectors: Tensor | Vectors,
    rule: str,
    f: int,
    *,
    generator: torch.Generator | None = None,
    bucket: int = 2,
    clipping: Clipping | None = None,
) -> Tensor:
    """Aggregate ``vectors_KP`` into one vector of P numbers: fp64 for fp64, fp32 for everything else.

    ``generator`` and ``bucket`` are for ``bucketing``: how its groups are drawn and how large they are; liars
    must not know the draw before they send. ``clipping`` is for ``centered_clipping``. Raises
    ``BadAggregate`` for an unknown rule, too few workers, or nothing finite.
    """
    source = held(vectors)
    workers = source.shape[0]
    check_rule(rule, workers, f, bucket=bucket)
    *before, last = rule.split("+")
    if "bucketing" in before and generator is None:
        raise BadAggregate("Bucketing draws its groups by chance; give the generator to draw them from.")
    how = clipping or Clipping()
    if how.centre_P is not None and last == "centered_clipping":
        source = _With(source, how.centre_P)
    gram_SS = gram(source, distances=bool(before) or last not in ("mean", *_BY_COLUMN))
    kept = _kept(gram_SS.diagonal()[:workers], last, f)
    left = max(0, f - (workers - len(kept)))
    check_rule(rule, len(kept), left, bucket=bucket)
    mix_MK = torch.eye(workers, dtype=torch.float64)[kept]
    gram_SS[~gram_SS.isfinite()] = 0.0  # those rows have no weight from here on
    for step in before:
        inner_MM = mix_MK @ gram_SS[:workers, :workers].cpu() @ mix_MK.mT
        if step == "nnm":
            mix_MK = mixing.nnm(inner_MM, left) @ mix_MK
        else:
            assert generator is not None
            mix_MK = mixing.bucketing(len(mix_MK), bucket, generator) @ mix_MK
    mix_MS = _beside(mix_MK, len(gram_SS) - workers)
    inner_MM = mix_MS @ gram_SS.cpu() @ mix_MS.mT
    if last not in _BY_COLUMN:
        mix_MS = (_weights(last, inner_MM, len(mix_MK), left, how) @ mix_MS)[None]
    return _combined(source, mix_MS, last, left)


def check_rule(rule: str, workers: int, f: int, *, bucket: int = 2) -> None:
    """Raise ``BadAggregate`` unless ``rule`` exists and stands f liars among so many workers."""
    *before, last = rule.split("+")
    unknown = [step for step in before if step not in PREAGGREGATIONS]
    if last not in RULES or unknown:
        raise BadAggregate(
            f"There is no rule {rule!r}; a rule is one of {', '.join(RULES)}, with "
            f"{' or '.join(f'{step}+' for step in PREAGGREGATIONS)} in front if you like: nnm+median."
        )
    if f < 0 or bucket < 1:
        raise BadAggregate(
            f"{f} liars in buckets of {bucket} make no sense; give none or more, and one or more."
        )
    left = workers
    for step in before:
        left = -(-left // bucket) if step == "bucketing" else left
        _enough(rule, step, workers, left, f, 2 * f + 1)
    fewest = {"mean": 1, "krum": 2 * f + 3, "multi_krum": 2 * f + 3}.get(last, 2 * f + 1)
    _enough(rule, last, workers, left, f, fewest)


def finite(vectors: Tensor | Vectors) -> list[bool]:
    """Say of each worker whether its vector is of finite length, that is: not set aside."""
    known: list[bool] = gram(held(vectors), distances=False).diagonal().isfinite().tolist()
    return known


def _enough(rule: str, step: str, workers: int, left: int, f: int, fewest: int) -> None:
    if left < fewest:
        merged = "" if left == workers else f", of whom bucketing leaves {left},"
        raise BadAggregate(
            f"{rule} with {f} liars among {workers} workers{merged} cannot be trusted: {step} needs at least "
            f"{fewest}. Have more workers, or bear fewer liars."
        )


def _kept(squares_K: Tensor, last: str, f: int) -> list[int]:
    kept: list[int] = squares_K.isfinite().nonzero().flatten().tolist()
    lost = len(squares_K) - len(kept)
    if not kept or (lost > f and last != "mean"):
        raise BadAggregate(
            f"{lost} of {len(squares_K)} workers sent NaN, infinity or a vector too long for any number; the "
            f"rule was to bear {f}. Leave those workers out, or find out why they diverged."
        )
    return kept


def _beside(mix_MK: Tensor, more: int) -> Tensor:
    """Let ``more`` rows behind the vectors (the centre) pass unmixed."""
    made, taken = mix_MK.shape
    mix_MS = torch.zeros(made + more, taken + more, dtype=mix_MK.dtype)
    mix_MS[:made, :taken] = mix_MK
    mix_MS[made:, taken:] = torch.eye(more)
    return mix_MS


def _weights(last: str, gram_MM: Tensor, count: int, f: int, how: Clipping) -> Tensor:
    if last == "mean":
        return weights.mean(gram_MM)
    if last == "geometric_median":
        return weights.geometric_median(gram_MM)
    if last == "centered_clipping":
        return weights.centered_clipping(gram_MM, count, how)
    return (weights.krum if last == "krum" else weights.multi_krum)(gram_MM, f)


def _combined(source: Vectors, mix_MS: Tensor, last: str, f: int) -> Tensor:
    """Read the columns and give the rule's answer, in the type that it is computed in."""
    rows, size = source.shape
    work = torch.float64 if source.dtype == torch.float64 else torch.float32
    used = mix_MS.any(0).nonzero().flatten().tolist()
    plain = torch.equal(mix_MS[:, used], torch.eye(len(used), dtype=torch.float64))
    out_P: Tensor | None = None
    for start, stop in blocks(rows, size):
        x_KC = source.block(start, stop)
        x_KC = _rows(x_KC, used).to(work)
        x_MC = x_KC if plain else mix_MS[:, used].to(x_KC) @ x_KC
        if out_P is None:
            out_P = torch.empty(size, dtype=work, device=x_MC.device)
        if last == "median":
            out_P[start:stop] = columns.median(x_MC)
        elif last == "trimmed_mean":
            out_P[start:stop] = columns.trimmed_mean(x_MC, f)
        else:
            out_P[start:stop] = x_MC[0]
    assert out_P is not None
    return out_P


def _rows(x_KC: Tensor, used: Sequence[int]) -> Tensor:
    return x_KC if len(used) == len(x_KC) else x_KC[list(used)]


class _With:
    """Vectors and one more, the centre. Raises ``BadAggregate`` where that is of another length."""

    def __init__(self, source: Vectors, centre_P: Tensor) -> None:
        if centre_P.shape != source.shape[1:] or not bool(centre_P.isfinite().all()):
            raise BadAggregate(
                f"The centre to clip around is of shape {tuple(centre_P.shape)} or not finite; give one "
                f"vector of {source.shape[1]:,} finite numbers."
            )
        self._source, self._centre_P = source, centre_P.detach()

    @property
    def shape(self) -> tuple[int, int]:
        return self._source.shape[0] + 1, self._source.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self._source.dtype

    def block(self, start: int, stop: int) -> Tensor:
        x_KC = self._source.block(start, stop)
        return torch.cat([x_KC, self._centre_P[start:stop].to(x_KC)[None]])
