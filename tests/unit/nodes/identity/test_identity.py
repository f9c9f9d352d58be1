"""Keys stay private, certificates name one node, and a state folder is what it seems or is refused."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.errors import WriteFailed
from sharedllm.nodes.errors import NotAdmitted
from sharedllm.nodes.identity import (
    COORDINATOR_NAME,
    Authority,
    Identity,
    NodeKey,
    client_context,
    create_secret,
    enrol,
    is_node_id,
    node_id,
    read_peer,
    server_context,
    state_root,
    write_public,
    write_secret,
)
from sharedllm.nodes.identity.tls import pinned_context


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "node.key"
    key = NodeKey.load_or_create(path)
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert NodeKey.load_or_create(path).id == key.id == node_id(key.public_bytes)
    assert is_node_id(key.id)


def test_a_key_that_others_could_read_is_closed_to_them_again(tmp_path: Path) -> None:
    NodeKey.load_or_create(tmp_path / "node.key")
    (tmp_path / "node.key").chmod(0o644)
    NodeKey.load_or_create(tmp_path / "node.key")
    assert mode(tmp_path / "node.key") == 0o600


def test_two_that_make_the_same_key_at_once_get_the_same(tmp_path: Path) -> None:
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.append(NodeKey.load_or_create(tmp_path / "node.key").id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["node.key"]


def test_a_secret_replaces_a_wider_file_with_a_closed_one(tmp_path: Path) -> None:
    write_public(tmp_path / "file", b"open")
    assert mode(tmp_path / "file") == 0o644
    write_secret(tmp_path / "file", b"closed")
    assert mode(tmp_path / "file") == 0o600


def test_a_secret_that_exists_is_not_made_again(tmp_path: Path) -> None:
    assert create_secret(tmp_path / "file", b"first")
    assert not create_secret(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_a_folder_that_can_not_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteFailed, match="could not be written"):
        write_secret(tmp_path / "file" / "below", b"")


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nxx\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_told_and_not_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node.key").write_bytes(content)
    with pytest.raises(NotAdmitted, match="holds no Ed25519 private key"):
        NodeKey.load_or_create(tmp_path / "node.key")
    assert (tmp_path / "node.key").read_bytes() == content


def test_the_state_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHAREDLLM_STATE", str(tmp_path / "a"))
    assert state_root() == tmp_path / "a"
    monkeypatch.delenv("SHAREDLLM_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "b"))
    assert state_root() == tmp_path / "b" / "sharedllm"


def test_an_authority_stays_the_same(authority: Authority, tmp_path: Path) -> None:
    again = Authority.load_or_create(tmp_path / "authority")
    assert (again.fingerprint, again.certificate_pem) == (authority.fingerprint, authority.certificate_pem)
    assert mode(tmp_path / "authority" / "authority.key") == 0o600


def test_an_authority_with_anothers_certificate_is_refused(authority: Authority, tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path / "other")
    (tmp_path / "other" / "authority.crt").write_bytes(authority.certificate_pem)
    with pytest.raises(NotAdmitted, match="not the certificate of the key beside it"):
        Authority.load_or_create(tmp_path / "other")


def test_a_certificate_names_its_node_and_its_days(authority: Authority) -> None:
    public = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    peer = read_peer(authority.issue(public, "worker", seconds=3600, now=1_800_000_000))
    assert (peer.id, peer.role) == (node_id(public), "worker")
    assert peer.not_before < 1_800_000_000 < peer.not_after == 1_800_003_600
    assert peer.renew_in_s(1_800_000_000) == 2300
    assert peer.renew_in_s(1_800_003_000) == 0
    assert not peer.expired(1_800_003_599)
    assert peer.expired(1_800_003_600)


def test_there_is_no_other_role(authority: Authority) -> None:
    with pytest.raises(NotAdmitted, match="There is no role 'root'"):
        authority.issue(bytes(range(32)), "root")


def test_the_authoritys_own_certificate_is_no_nodes(authority: Authority) -> None:
    with pytest.raises(NotAdmitted, match="not a node's"):
        read_peer(authority.certificate_pem)


@pytest.mark.parametrize("shown", [None, b""])
def test_no_certificate_is_told(shown: bytes | None) -> None:
    with pytest.raises(NotAdmitted, match="No client certificate was shown"):
        read_peer(shown)


@pytest.mark.parametrize("shown", [b"x", b"x" * 100_000, b"-----BEGIN CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_told(shown: bytes) -> None:
    with pytest.raises(NotAdmitted, match="is none"):
        read_peer(shown)


def test_a_node_that_has_not_joined_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotAdmitted, match=r"node.key, node.crt, ca.crt missing"):
        Identity.load(tmp_path)


@pytest.mark.parametrize("file", ["node.crt", "node.key"])
def test_files_of_two_nodes_do_not_make_one(worker: Identity, primary: Identity, file: str) -> None:
    (worker.folder / file).write_bytes((primary.folder / file).read_bytes())
    with pytest.raises(NotAdmitted, match="the key beside it belongs to"):
        Identity.load(worker.folder)


def test_a_certificate_of_another_authority_is_refused(worker: Identity, tmp_path: Path) -> None:
    other = Authority.load_or_create(tmp_path / "other")
    (worker.folder / "ca.crt").write_bytes(other.certificate_pem)
    with pytest.raises(NotAdmitted, match="was not issued by the authority beside it"):
        Identity.load(worker.folder)


def shown_by(
    server: Identity, context: ssl.SSLContext, calling_context: ssl.SSLContext, name: str | None = None
) -> bytes | None:
    """The certificate that a server shows, in a handshake in memory, to one who asks for ``name``."""
    serving, to_server, from_server = server.wrap(context, server_side=True)
    to_client, from_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    calling = calling_context.wrap_bio(to_client, from_client, server_hostname=name)
    for _ in range(4):
        for session in (calling, serving):
            with contextlib.suppress(ssl.SSLWantReadError):
                session.do_handshake()
            to_server.write(from_client.read())
            to_client.write(from_server.read())
    return calling.getpeercert(True)


def test_a_live_context_shows_the_renewed_certificate(
    authority: Authority, worker: Identity, primary: Identity
) -> None:
    context = server_context(worker, client_certificates="required")
    before = shown_by(worker, context, client_context(primary))
    renewed = authority.issue(worker.key.public_bytes, "worker")
    write_public(worker.folder / "node.crt", renewed)
    worker.reload()
    after = shown_by(worker, context, client_context(primary))
    assert before is not None
    assert after == ssl.PEM_cert_to_DER_cert(renewed.decode()) != before


def test_a_renewed_certificate_of_another_node_is_not_shown(worker: Identity, primary: Identity) -> None:
    certificate = worker.certificate
    write_public(worker.folder / "node.crt", primary.certificate)
    with pytest.raises(NotAdmitted):
        worker.reload()
    assert worker.certificate == certificate


def test_a_coordinator_shows_browsers_its_public_name_and_nodes_its_own(
    authority: Authority, primary: Identity, tmp_path: Path
) -> None:
    coordinator = enrol(authority, tmp_path / "coordinator", "coordinator")
    public = enrol(Authority.load_or_create(tmp_path / "public"), tmp_path / "site", "coordinator")
    files = (public.folder / "node.crt", public.folder / "node.key")
    context = server_context(coordinator, client_certificates="optional", public=files)
    for name in (None, COORDINATOR_NAME):
        assert read_peer(shown_by(coordinator, context, client_context(primary), name)).id == coordinator.id
    browser = pinned_context(public.ca)
    assert read_peer(shown_by(coordinator, context, browser, "llm.example.org")).id == public.id


def test_identity_and_proxy_import_neither_torch_nor_fastapi() -> None:
    code = (
        "import sys, sharedllm.nodes.identity, sharedllm.nodes.proxy\n"
        "print(sorted({'torch', 'fastapi', 'numpy', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout == "[]\n"


def test_a_certificate_is_valid_at_once_on_a_machine_whose_clock_is_behind(worker: Identity) -> None:
    assert worker.peer.not_before <= time.time() - 240
