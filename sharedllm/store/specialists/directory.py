"""Which specialists this machine knows: those that ship with the package, and those published in the store.

What ships is signed with a key of its own, ``PUBLISHER``; its private half is not in the package. Such a
signature proves that manifest and blobs are those that were published together, and nothing about how good
they are.
"""

from __future__ import annotations

from pathlib import Path

from sharedllm.errors import BadManifest, UnknownName
from sharedllm.store import atomic
from sharedllm.store.blobs import Blobs
from sharedllm.store.cache import home
from sharedllm.store.specialists.signed import Signed, is_name

__all__ = ["PUBLISHER", "export", "find", "names", "publish"]

PUBLISHER = "c226202cb7e67c233388aa2379290137c51e5dda4cf69fcc62992972f2584944"
_SHIPPED = Path(__file__).parent.parent / "artefacts" / "specialists"


def publish(name: str, signed: Signed) -> None:
    """Make ``find(name)`` find it on this machine; an earlier one of that name is forgotten.

    Raises ``UnknownName`` for a name that can't be used, ``WriteFailed``.
    """
    if not is_name(name):
        raise UnknownName(
            f"{name!r} can't name a specialist; use up to 64 lower-case letters, digits, dots, dashes and "
            "underscores."
        )
    atomic.write_bytes(home() / "specialists" / f"{name}.json", signed.to_bytes())


def names() -> list[str]:
    """List the specialists that ``find`` knows by name, sorted."""
    folders = (_SHIPPED, home() / "specialists")
    return sorted({path.stem for folder in folders for path in folder.glob("*.json")})


def find(name_or_id: str) -> Signed:
    """Return the specialist of that name, or of that id (64 hex digits), verified.

    Raises ``UnknownName``, and ``BadManifest`` for one that was changed on this disk.
    """
    if is_name(name_or_id):
        for folder in (home() / "specialists", _SHIPPED):
            path = folder / f"{name_or_id}.json"
            if path.is_file():
                return _read(path)
        for name in names():
            signed = find(name)
            if signed.id == name_or_id:
                return signed
    known = ", ".join(names()) or "none yet"
    raise UnknownName(
        f"There is no specialist {name_or_id[:80]!r} on this machine; there are: {known}. Train one with "
        "`sharedllm specialist train`, or fetch it with `sharedllm specialist fetch`."
    )


def export(name: str, folder: Path) -> list[Path]:
    """Copy an adapter specialist into ``folder`` as the two files in which one may ship with the package.

    Raises ``BadManifest`` for a specialist that is a whole model, and what ``find`` raises.
    """
    signed = find(name)
    if signed.body.adapter is None:
        raise BadManifest(f"{name} is a whole model; only an adapter is small enough to ship.")
    files = {
        f"{name}.safetensors": Blobs().path(signed.body.adapter.sha256).read_bytes(),
        f"{name}.json": signed.to_bytes(),
    }
    for filename, data in files.items():
        atomic.write_bytes(folder / filename, data)
    return [folder / filename for filename in files]


def _read(path: Path) -> Signed:
    with path.open("rb") as file:
        signed = Signed.from_bytes(file.read(1 << 16), str(path))
    adapter = signed.body.adapter
    if path.parent == _SHIPPED and adapter is not None and not Blobs().has(adapter.sha256):
        blob = path.with_suffix(".safetensors")
        if not blob.is_file() or Blobs().put_file(blob) != adapter.sha256:
            raise BadManifest(f"{blob} is missing or damaged; install sharedllm again.")
    return signed
