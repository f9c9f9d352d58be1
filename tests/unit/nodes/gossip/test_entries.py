"""Signed entries: one reading, and forgeries refused."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sharedllm.nodes.gossip import Author, BadEntry, Certified, Entry, Kind
from sharedllm.nodes.identity import Authority, NodeKey
from sharedllm.nodes.identity.certificates import read_certificate

now = time.time  # read in each test: a certificate must be younger than the suite


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.load_or_create(tmp_path / "authority")


def author(authority: Authority, tmp_path: Path, name: str = "node", role: str = "worker") -> Author:
    key = NodeKey.load_or_create(tmp_path / name)
    pem = authority.issue(key.public_bytes, role)
    return Author(key, read_certificate(pem).public_bytes(Encoding.DER))


def test_an_entry_reads_back_as_it_was_written(authority: Authority, tmp_path: Path) -> None:
    entry = author(authority, tmp_path).issue(Kind.MANIFEST, b"id", b"{}", 60, now())
    again = Entry.from_bytes(entry.to_bytes())
    assert dataclasses.asdict(again) == dataclasses.asdict(entry)


def test_a_member_is_believed(authority: Authority, tmp_path: Path) -> None:
    entry = author(authority, tmp_path).issue(Kind.VOTE, b"id", b"", 60, now())
    Certified(authority.certificate_pem).check(entry, now())


@pytest.mark.parametrize("change", [{"payload": b"[]"}, {"sequence": 1}, {"expires_s": 2}, {"key": b"ie"}])
def test_a_changed_entry_is_refused(authority: Authority, tmp_path: Path, change: dict[str, object]) -> None:
    entry = author(authority, tmp_path).issue(Kind.MANIFEST, b"id", b"{}", 60, now())
    forged = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry) if f.init} | change
    with pytest.raises(BadEntry, match="it did not"):
        Certified(authority.certificate_pem).check(Entry(**forged), now())


def test_another_federations_member_is_refused(authority: Authority, tmp_path: Path) -> None:
    other = Authority.load_or_create(tmp_path / "other")
    entry = author(other, tmp_path).issue(Kind.VOTE, b"id", b"", 60, now())
    with pytest.raises(BadEntry, match="without a certificate of this federation"):
        Certified(authority.certificate_pem).check(entry, now())


def test_a_certificate_of_an_unknown_version_is_refused(authority: Authority, tmp_path: Path) -> None:
    signs = author(authority, tmp_path)
    version = b"\xa0\x03\x02\x01\x02"
    signs.certificate = signs.certificate.replace(version, version[:-1] + b"\x49", 1)
    with pytest.raises(BadEntry, match="without a certificate of this federation"):
        Certified(authority.certificate_pem).check(signs.issue(Kind.VOTE, b"id", b"", 60, now()), now())


def test_another_members_certificate_does_not_help(authority: Authority, tmp_path: Path) -> None:
    thief = author(authority, tmp_path, "thief")
    thief.certificate = author(authority, tmp_path, "victim").certificate
    with pytest.raises(BadEntry, match="came with the certificate of"):
        Certified(authority.certificate_pem).check(thief.issue(Kind.VOTE, b"id", b"", 60, now()), now())


def test_an_entry_can_not_outlive_its_certificate(authority: Authority, tmp_path: Path) -> None:
    entry = author(authority, tmp_path).issue(Kind.VOTE, b"id", b"", 48 * 3600, now())
    with pytest.raises(BadEntry, match="not covered by its certificate's dates"):
        Certified(authority.certificate_pem).check(entry, now())


def test_an_expelled_member_is_refused(authority: Authority, tmp_path: Path) -> None:
    entry = author(authority, tmp_path).issue(Kind.VOTE, b"id", b"", 60, now())
    expelled = Certified(authority.certificate_pem, lambda node: node == entry.issuer_id)
    with pytest.raises(BadEntry, match="was expelled"):
        expelled.check(entry, now())


def test_a_later_entry_never_expires_before_an_earlier_one(authority: Authority, tmp_path: Path) -> None:
    signs = author(authority, tmp_path)
    first = signs.issue(Kind.LEASE, b"", b"{}", 600, now())
    assert signs.withdraw(Kind.LEASE, b"", now() + 1).expires_s >= first.expires_s


def test_a_restarted_author_goes_on_above_what_it_said(authority: Authority, tmp_path: Path) -> None:
    first = author(authority, tmp_path).issue(Kind.LEASE, b"", b"{}", 60, now())
    second = author(authority, tmp_path).issue(Kind.LEASE, b"", b"{}", 60, now() + 1)
    assert second.rank > first.rank


def test_a_manifest_over_4_kb_is_refused_when_it_is_published(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(BadEntry, match="at most 4096"):
        author(authority, tmp_path).issue(Kind.MANIFEST, b"id", bytes(4097), 60, now())


@pytest.mark.parametrize("cut", [0, 10, 80, 140])
def test_an_entry_cut_short_is_refused(authority: Authority, tmp_path: Path, cut: int) -> None:
    data = author(authority, tmp_path).issue(Kind.MANIFEST, b"id", b"{}", 60, now()).to_bytes()
    with pytest.raises(BadEntry):
        Entry.from_bytes(data[:cut])


def test_an_entry_with_bytes_after_its_end_is_refused(authority: Authority, tmp_path: Path) -> None:
    data = author(authority, tmp_path).issue(Kind.MANIFEST, b"id", b"{}", 60, now()).to_bytes()
    with pytest.raises(BadEntry):
        Entry.from_bytes(data + b"\x00")


def test_an_unknown_kind_is_refused(authority: Authority, tmp_path: Path) -> None:
    data = bytearray(author(authority, tmp_path).issue(Kind.MANIFEST, b"id", b"{}", 60, now()).to_bytes())
    data[19] = 9
    with pytest.raises(BadEntry, match="unknown here"):
        Entry.from_bytes(bytes(data))
