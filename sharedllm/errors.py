"""What can go wrong, as sentences: what was given, what was expected, what to do next.

Every error a person can cause derives from ``SharedLLMError``; the command line prints its sentence and exits
with ``exit_code``. Anything else that surfaces is our defect and keeps its traceback.
"""

from __future__ import annotations

__all__ = [
    "BadAdapter",
    "BadAggregate",
    "BadBet",
    "BadLedger",
    "BadLog",
    "BadManifest",
    "BadMixture",
    "BadModelFile",
    "BadPrompt",
    "BadReceipt",
    "BadRecipe",
    "BadText",
    "BadUpdate",
    "BankFull",
    "CatalogueTampered",
    "DownloadFailed",
    "MissingSource",
    "RunFailed",
    "SharedLLMError",
    "UnknownName",
    "WriteFailed",
]


class SharedLLMError(Exception):
    """A sentence for the person, and the exit code that goes with it."""

    exit_code = 1


class BadModelFile(SharedLLMError):
    """A model file is truncated, of an unknown type, inconsistent, or holds NaN."""


class BadManifest(BadModelFile):
    """A signed manifest is forged, too long, malformed, or signed by another than was asked for."""


class BadMixture(SharedLLMError):
    """Log-probabilities or weights cannot be mixed: wrong shape, NaN, or weights that do not sum to one."""


class BadLedger(SharedLLMError):
    """An attribution entry does not add up to its token's joint log-probability, or cannot be made."""


class BadLog(SharedLLMError):
    """A transparency log, a checkpoint or a proof of one is damaged, forged, rolled back or forked."""


class BadReceipt(SharedLLMError):
    """A receipt was changed, is not of the log or the client named, or is no receipt."""


class BadPrompt(SharedLLMError):
    """A prompt is empty, or longer than the model's context."""


class BadAdapter(SharedLLMError):
    """An adapter belongs to another base, has wrong shapes, or holds NaN."""


class BadAggregate(SharedLLMError):
    """Updates cannot be aggregated: an unknown rule, more liars than it bears, no table, nothing finite."""


class BankFull(SharedLLMError):
    """More users than a bank of adapters has room for."""


class BadRecipe(SharedLLMError):
    """A training recipe, or a checkpoint, does not fit what it is used with."""


class BadUpdate(SharedLLMError):
    """What a worker sends of its training is damaged, of another length, or not finite."""


class BadText(SharedLLMError):
    """A person's own text can't be read, is not UTF-8, or is too short to learn from and to judge by."""


class BadBet(SharedLLMError):
    """A ``bet.toml``, a notebook or a parameter is malformed, unknown or mistyped."""


class CatalogueTampered(SharedLLMError):
    """The ledger, a registration or a result was changed after the fact."""


class RunFailed(SharedLLMError):
    """A notebook crashed, ran past its time limit, or printed more than it may."""


class MissingSource(SharedLLMError):
    """A text needs a package that is not installed."""


class DownloadFailed(SharedLLMError):
    """A package could not be fetched, or is not the one that was expected."""


class UnknownName(SharedLLMError):
    """A model, text, user or bet of that name does not exist; the sentence lists those that do."""


class WriteFailed(SharedLLMError):
    """The disk refused a write; nothing half-written was left behind."""
