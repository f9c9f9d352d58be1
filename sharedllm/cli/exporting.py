"""What ``sharedllm model export`` does: write a ternary file, and say what that saved and what it cost.

``SCHEMES`` are the ways to choose trits: a name, and where the function is that turns a live model into
``store.ternary`` weights by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sharedllm import corpus
from sharedllm.cli.progress import Report
from sharedllm.errors import UnknownName
from sharedllm.store import Blobs, Loaded, atomic, ternary
from sharedllm.training import held_out, overall
from sharedllm.training.evaluate import DocumentLoss, beginning

__all__ = ["SCHEMES", "Weights", "code", "losses", "parts", "refuse_unknown", "write"]

Weights = Mapping[str, ternary.Weight]
Quantise = Callable[[Loaded, Report], Weights]

_RECIPES = "sharedllm.training.calibrated.recipes"
SCHEMES: dict[str, str] = {"rounded": __name__, "calibrated": _RECIPES, "planes": _RECIPES}
_WINDOW = 512
_BYTES = 2_000


def refuse_unknown(scheme: str) -> None:
    """Raise ``UnknownName`` for a scheme that is none of ``SCHEMES``."""
    if scheme not in SCHEMES:
        raise UnknownName(f"There is no scheme {scheme!r}; there are {', '.join(SCHEMES)}.")


def write(loaded: Loaded, scheme: str, table: ternary.Table, out: Path, report: Report) -> None:
    """Write a model to ``out`` by a scheme of ``SCHEMES``; one that is ternary already is copied.

    Raises what the scheme raises.
    """
    manifest = loaded.manifest
    if manifest.dtype == ternary.DTYPE:
        atomic.write_bytes(out, Blobs().hold(manifest.weights_sha256).read_bytes())
        return
    quantise: Quantise = getattr(importlib.import_module(SCHEMES[scheme]), scheme)
    weights = quantise(loaded, report)
    about = {"base": manifest.name, "base_sha256": manifest.weights_sha256, "scheme": scheme}
    with atomic.writing(out) as file:
        ternary.write(
            file,
            manifest.config,
            loaded.tokenizer,
            weights,
            table=table,
            licence=manifest.licence,
            provenance=about,
        )


def rounded(loaded: Loaded, report: Report) -> Weights:
    """Each hidden weight becomes the nearest of three numbers."""
    return ternary.rounded(loaded.model.state_dict())


def code(path: Path) -> Path:
    """Write the coded form of a ternary file beside it, and return its path. Raises ``MissingSource``."""
    coded = path.with_name(path.name + ternary.coding.SUFFIX)
    with atomic.writing(coded) as file:
        ternary.coding.encode(path, file)
    return coded


def parts(path: Path) -> Iterator[str]:
    """The lines of a table: the bytes of each part of a ternary file, and the bits that a weight takes."""
    sizes, total = ternary.inventory(ternary.read(path)), path.stat().st_size
    yield f"{'part':<12}{'bytes':>14}{'of file':>9}{'weights':>14}{'bits each':>11}"
    for part in sizes:
        weights, bits = (f"{part.weights:,}", f"{part.bits:.3f}") if part.bits else ("", "")
        yield f"{part.name:<12}{part.n_bytes:>14,}{part.n_bytes / total:>9.1%}{weights:>14}{bits:>11}"
    every = sum(part.weights for part in sizes)
    yield f"{'file':<12}{total:>14,}{1:>9.1%}{every:>14,}{8 * total / every:>11.3f}"


def losses(models: Mapping[str, Loaded], n_documents: int, report: Report) -> Iterator[str]:
    """The lines of a table: each model's bits per byte on held-out text of each base domain.

    Read are the first 2,000 bytes of ``n_documents`` documents of the test split, spread over it.
    """
    texts = {name: _spread(corpus.domain(name).test, n_documents) for name in corpus.BASE_DOMAINS}
    one = sum(len(beginning(d.text, _BYTES).encode()) for some in texts.values() for d in some)
    done, total = 0, one * len(models)
    table: dict[str, list[float]] = {}
    for what, loaded in models.items():
        for name, documents in texts.items():
            scored: list[DocumentLoss] = []
            for document in documents:
                report(f"Reading held-out text {what}", done, total)
                scored += held_out(
                    loaded.model, loaded.tokenizer, [document], window=_WINDOW, at_most_bytes=_BYTES
                )
                done += scored[-1].n_bytes
            table.setdefault(name, []).append(overall(scored))
    yield f"{'bits per byte':<14}" + "".join(f"{what:>10}" for what in models)
    for name, row in table.items():
        yield f"{name:<14}" + "".join(f"{loss:>10.3f}" for loss in row)
    means = [sum(column) / len(column) for column in zip(*table.values(), strict=True)]
    yield f"{'mean':<14}" + "".join(f"{mean:>10.3f}" for mean in means)


def _spread(documents: tuple[corpus.Document, ...], n: int) -> tuple[corpus.Document, ...]:
    return documents[:: -(-len(documents) // n)]
