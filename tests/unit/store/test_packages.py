"""Packages are fetched by hash and never executed, here from an index on this machine."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedllm.errors import DownloadFailed
from sharedllm.store import packages

WHEEL = "texts-1.0-py3-none-any.whl"
SDIST = "texts-1.0.tar.gz"
EITHER = [
    SDIST,
    pytest.param(WHEEL, marks=pytest.mark.slow),
]  # wheels are fetched by pip, which takes seconds


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def wheel_bytes() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("texts/poem.txt", "Of man's first disobedience\n" * 1000)
        archive.writestr("texts-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: texts\nVersion: 1.0\n")
        archive.writestr(
            "texts-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("texts-1.0.dist-info/RECORD", "")
    return data.getvalue()


def sdist_bytes(marker: Path) -> bytes:
    """A source distribution whose ``setup.py``, if anybody ran it, would leave a mark."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        script = f"open({str(marker)!r}, 'w').close()\n".encode()
        member = tarfile.TarInfo("texts-1.0/setup.py")
        member.size = len(script)
        archive.addfile(member, io.BytesIO(script))
    return data.getvalue()


class Index:
    """A package index on the loopback interface, because pip and our reader must agree on a real protocol."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cut = folder, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/").rsplit("/", 1)[-1]
                path = outer.folder / name
                page = "".join(f'<a href="/files/{p.name}">{p.name}</a>' for p in outer.folder.iterdir())
                data = path.read_bytes() if path.is_file() else f"<!DOCTYPE html><html>{page}</html>".encode()
                self.send_response(200)
                self.send_header(
                    "Content-Type", "application/octet-stream" if path.is_file() else "text/html"
                )
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) - (outer.cut if path.is_file() else 0)])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"

    def put(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return hashlib.sha256(data).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    (tmp_path / "files").mkdir()
    index = Index(tmp_path / "files")
    thread = threading.Thread(target=index.server.serve_forever)
    thread.start()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    yield index
    index.server.shutdown()
    index.server.server_close()
    thread.join()


def kept(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "packages").iterdir())


@pytest.mark.parametrize("filename", [WHEEL, SDIST])
def test_a_package_is_fetched_once_and_then_offline(index: Index, home: Path, filename: str) -> None:
    data = wheel_bytes() if filename == WHEEL else sdist_bytes(home)
    sha256 = index.put(filename, data)
    path = packages.fetch("texts", "1.0", sha256, filename)
    (index.folder / filename).unlink()
    assert packages.fetch("texts", "1.0", sha256, filename).read_bytes() == data
    assert kept(home) == [path.name] == [filename]


def test_nothing_of_a_source_distribution_is_executed(index: Index, tmp_path: Path) -> None:
    sha256 = index.put(SDIST, sdist_bytes(tmp_path / "marker"))
    packages.fetch("texts", "1.0", sha256, SDIST)
    assert not (tmp_path / "marker").exists()


@pytest.mark.slow
def test_progress_ends_with_all_bytes(index: Index) -> None:
    data, told = wheel_bytes(), []
    packages.fetch("texts", "1.0", index.put(WHEEL, data), WHEEL, lambda *report: told.append(report))
    assert told[-1] == (f"Fetching {WHEEL}", len(data), len(data))


@pytest.mark.parametrize("filename", EITHER)
def test_a_file_of_another_hash_is_refused_and_thrown_away(index: Index, home: Path, filename: str) -> None:
    found = index.put(filename, wheel_bytes() if filename == WHEEL else sdist_bytes(home))
    with pytest.raises(DownloadFailed, match=found):
        packages.fetch("texts", "1.0", "0" * 64, filename)
    assert kept(home) == []


@pytest.mark.parametrize("filename", EITHER)
def test_a_connection_that_ends_early_leaves_nothing(index: Index, home: Path, filename: str) -> None:
    sha256 = index.put(filename, wheel_bytes() if filename == WHEEL else sdist_bytes(home))
    index.cut = 10
    with pytest.raises(DownloadFailed, match="could not be fetched"):
        packages.fetch("texts", "1.0", sha256, filename)
    assert kept(home) == []


@pytest.mark.slow
def test_an_interrupt_leaves_nothing(index: Index, home: Path) -> None:
    def interrupt(what: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packages.fetch("texts", "1.0", index.put(WHEEL, wheel_bytes()), WHEEL, interrupt)
    assert kept(home) == []


@pytest.mark.parametrize("filename", EITHER)
def test_a_package_that_does_not_exist_is_a_sentence(index: Index, home: Path, filename: str) -> None:
    with pytest.raises(DownloadFailed, match="by hand"):
        packages.fetch("texts", "1.0", "0" * 64, filename)


def test_a_file_put_in_place_by_hand_needs_no_index(home: Path) -> None:
    (home / "packages").mkdir(parents=True)
    data = wheel_bytes()
    (home / "packages" / WHEEL).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    assert packages.fetch("texts", "1.0", sha256, WHEEL) == home / "packages" / WHEEL


@pytest.mark.slow
def test_a_file_that_was_damaged_in_the_store_is_fetched_again(index: Index, home: Path) -> None:
    data = wheel_bytes()
    sha256 = index.put(WHEEL, data)
    packages.fetch("texts", "1.0", sha256, WHEEL).write_bytes(b"damaged")
    assert packages.fetch("texts", "1.0", sha256, WHEEL).read_bytes() == data
