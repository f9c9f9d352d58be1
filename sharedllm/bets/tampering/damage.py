"""Everything that can be done to a manifest or a blob on its way, and a tally of what was refused.

*Covered*: what somebody without the publisher's key can do to either, and what a publisher's broken program
may sign. *Not covered*: a publisher who lies well: another configuration of the same shapes, another
tokenizer of the same size, weights that are finite and bad.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.errors import SharedLLMError
from sharedllm.store import canonical_json, safetensors
from sharedllm.store.specialists import Signed

__all__ = ["Tally", "blob_damage", "changes", "manifest_damage", "regions", "signed_anyway"]

_PARTS = 32
_FORBIDDEN = (float("nan"), float("inf"), -float("inf"))


class Tally:
    """Attempts by kind; only a sentence counts as a refusal, and a traceback as a crash."""

    def __init__(self) -> None:
        self.attempted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.crashed: Counter[str] = Counter()

    def attempt(self, kind: str, what: Callable[[], object]) -> None:
        """Do ``what``, which is expected to be refused."""
        self.attempted[kind] += 1
        try:
            what()
        except SharedLLMError:
            self.refused[kind] += 1
        except Exception:
            self.crashed[kind] += 1

    @property
    def accepted(self) -> dict[str, int]:
        """What was not refused in a sentence, by kind."""
        return {kind: n - self.refused[kind] for kind, n in self.attempted.items()}


def signed_anyway(body: dict[str, Any], private: Ed25519PrivateKey, signer: str | None = None) -> bytes:
    """Put a signature on any body, in the canonical spelling or (NaN) as near to it as Python writes.

    ``signer`` is who it says it is; None: whose key it is.
    """
    said = _spelled(body)
    signer = signer or private.public_key().public_bytes_raw().hex()
    return _spelled({"body": body, "signature": private.sign(said).hex(), "signer": signer})


def changes(value: Any) -> Iterator[Any]:
    """Give ``value`` with one of its leaves changed, for each of them."""
    if isinstance(value, dict):
        yield from ({**value, key: new} for key in value for new in changes(value[key]))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from ([*value[:i], new, *value[i + 1 :]] for new in changes(item))
    elif isinstance(value, str):
        yield ("b" if value[:1] == "a" else "a") + value[1:]
    else:
        yield not value if isinstance(value, bool) else (value or 0) + 1


def manifest_damage(
    signed: Signed,
    publisher: Ed25519PrivateKey,
    stranger: Ed25519PrivateKey,
    tokenizer_sha256: str,
    draw: random.Random,
) -> Iterator[tuple[str, bytes]]:
    """Give each damaged envelope with its kind; ``tokenizer_sha256`` is a whole tokenizer, of another size.

    ``publisher`` is the key that signed it, ``stranger`` any other.
    """
    data, body = signed.to_bytes(), signed.body.to_dict()
    for at in range(len(data)):
        yield "changed byte", data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    for changed in changes(body):
        yield "changed field", canonical_json({**json.loads(data), "body": changed})
    theirs = stranger.public_key().public_bytes_raw().hex()
    for key, signer in ((stranger, theirs), (stranger, signed.signer), (publisher, theirs)):
        yield "foreign signer", signed_anyway(body, key, signer)
    for tokenizer in ("0" * 64, body["weights_sha256"], tokenizer_sha256):
        yield "wrong tokenizer", signed_anyway({**body, "tokenizer_sha256": tokenizer}, publisher)
    for field in ("layers", "width", "hidden", "vocab_size"):
        config = {**body["config"], field: body["config"][field] + 1}
        yield "weights that do not fit", signed_anyway({**body, "config": config}, publisher)
    for n_bytes in (4096 - len(data), 4096, 10**6):
        longer = {**body["provenance"], "more": "x" * n_bytes}
        yield "oversize", signed_anyway({**body, "provenance": longer}, publisher)
    for number in _FORBIDDEN:
        yield "no number", signed_anyway({**body, "provenance": {"loss": number}}, publisher)
    backwards = dict(reversed(json.loads(data).items()))
    yield "another spelling", data + b"\n"
    yield "another spelling", data.replace(b":", b": ")
    yield "another spelling", b'{"body":{},' + data[1:]
    yield "another spelling", data.decode().encode("utf-16")
    yield "another spelling", json.dumps(backwards, separators=(",", ":"), ensure_ascii=False).encode()


def regions(path: Path) -> list[range]:
    """The length, the header and each tensor of a safetensors file; equal parts of any other file."""
    size = path.stat().st_size
    try:
        starts = sorted(entry.start for entry in safetensors.read_header(path).values())
        cuts = [0, 8, *starts, size]
    except SharedLLMError:
        cuts = [size * i // _PARTS for i in range(_PARTS + 1)]
    return [range(a, b) for a, b in itertools.pairwise(cuts) if a < b]


def blob_damage(path: Path, other: Path, draw: random.Random, most: int) -> Iterator[str]:
    """Damage the file in one way after the other and give the kind; before the next it is whole again.

    A bit is flipped in each of at most ``most`` regions, the first two always among them; ``other`` is a
    whole blob whose content takes the place of this one's.
    """
    found = regions(path)
    for region in found[:2] + draw.sample(found[2:], max(0, min(most, len(found)) - 2)):
        at, bit = draw.choice(region), draw.randrange(8)
        _flip(path, at, bit)
        yield "flipped bit"
        _flip(path, at, bit)
    kept = path.with_suffix(".kept")
    path.rename(kept)
    yield "missing blob"
    size = kept.stat().st_size
    for kind, n_bytes in (("cut", 0), ("cut", size // 2), ("cut", size - 1), ("longer", size + 1)):
        shutil.copyfile(kept, path)
        os.truncate(path, n_bytes)
        yield f"{kind} blob"
    shutil.copyfile(other, path)
    yield "another blob's content"
    kept.replace(path)


def _flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def _spelled(what: dict[str, Any]) -> bytes:
    return json.dumps(what, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
