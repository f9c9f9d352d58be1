"""Every unweighted rule side by side, so that a bet can compare them on the very same token."""

from __future__ import annotations

from torch import Tensor

from sharedllm.combiner.mixture import mixture, token_log_probabilities
from sharedllm.combiner.product import geometric_mean, power_mean, product, raw_sum
from sharedllm.combiner.weights import Uniform

__all__ = ["by_rule"]


def by_rule(logp_NTV: Tensor, tokens_T: Tensor) -> dict[str, Tensor]:
    """Give what each rule says of the tokens that came: ``logp_T`` in nats by the rule's name.

    ``mean`` is the specialists' average and ``sum`` their sum; neither belongs to a distribution. Raises
    ``BadMixture`` as the rules do.
    """
    a_NT = token_log_probabilities(logp_NTV, tokens_T)

    def came(combined_TV: Tensor) -> Tensor:
        return combined_TV.gather(1, tokens_T[:, None]).squeeze(1)

    return {
        "mean": a_NT.mean(0),
        "mixture": mixture(a_NT, Uniform(len(a_NT)).logw_N),
        "power 1/2": came(power_mean(logp_NTV, 0.5)),
        "geometric": came(geometric_mean(logp_NTV)),
        "product": came(product(logp_NTV)),
        "sum": raw_sum(a_NT[..., None]).squeeze(-1),
    }
