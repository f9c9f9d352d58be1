"""Specialists become one distribution here: weights from the past, a mixture of the present, and the bounds
on both.

What must not happen in this room: loading or running a model (it sees logits and log-probabilities only),
using a token before it was predicted (``Weights.run`` gives the weights *before* token t), and any promise
that the mixture does at least as well as the best specialist. That is not true of any combiner here;
``bounds`` holds what is.

Bets: b004 (the inequalities, on every token), b018 (responsibilities are the Bayes update), b055 (logit
ensemble).
"""

from sharedllm.combiner.bounds import (
    PowerSlack,
    SequenceSlack,
    Slack,
    best_switching,
    fixed_share_price,
    fixed_share_slack,
    power_slack,
    sequence_slack,
    token_slack,
    tolerance,
)
from sharedllm.combiner.combiner import Combiner
from sharedllm.combiner.mixture import Blend, blended, mixture, token_log_probabilities
from sharedllm.combiner.product import geometric_mean, power_mean, product, raw_sum
from sharedllm.combiner.pruning import (
    Course,
    Pruned,
    PruningSlack,
    longest_sleep,
    pruning_cost,
    pruning_slack,
)
from sharedllm.combiner.router import Router
from sharedllm.combiner.rules import by_rule
from sharedllm.combiner.weights import Bayes, FixedShare, Static, Uniform, Weights

__all__ = [
    "Bayes",
    "Blend",
    "Combiner",
    "Course",
    "FixedShare",
    "PowerSlack",
    "Pruned",
    "PruningSlack",
    "Router",
    "SequenceSlack",
    "Slack",
    "Static",
    "Uniform",
    "Weights",
    "best_switching",
    "blended",
    "by_rule",
    "fixed_share_price",
    "fixed_share_slack",
    "geometric_mean",
    "longest_sleep",
    "mixture",
    "power_mean",
    "power_slack",
    "product",
    "pruning_cost",
    "pruning_slack",
    "raw_sum",
    "sequence_slack",
    "token_log_probabilities",
    "token_slack",
    "tolerance",
]
