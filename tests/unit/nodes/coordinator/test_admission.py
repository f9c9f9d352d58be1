"""A token lets one machine in, once and in time; a certificate is renewed for its own key only."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from sharedllm.nodes.coordinator import create_token, revoke
from sharedllm.nodes.coordinator.admission import Admission, Attempts
from sharedllm.nodes.coordinator.schemas import JoinRequest
from sharedllm.nodes.coordinator.status import Coordinator
from sharedllm.nodes.errors import Busy, JoinRefused, NotAdmitted
from sharedllm.nodes.identity import Authority, NodeKey, parse_token, read_peer, renewal_proof


@pytest.fixture
def admission(coordinator: Coordinator) -> Admission:
    return coordinator.admission


@pytest.fixture
def key(tmp_path: Path) -> NodeKey:
    return NodeKey.load_or_create(tmp_path / "joining" / "node.key")


def request(token: str, key: NodeKey, **changed: str) -> JoinRequest:
    parsed = parse_token(token)
    asked = {
        "token_id": parsed.id,
        "secret": parsed.secret,
        "public_key": key.public_bytes.hex(),
        "role": "worker",
        "name": "attic",
    }
    return JoinRequest.model_validate(asked | changed)


def test_who_holds_a_token_is_certified_for_its_own_key(admission: Admission, key: NodeKey) -> None:
    reply = admission.join(request(admission.create_token(), key), "10.0.0.1")
    peer = read_peer(reply["certificate_pem"].encode())
    assert (peer.id, peer.role) == (key.id, "worker")


def test_who_joined_is_a_member(coordinator: Coordinator, admission: Admission, key: NodeKey) -> None:
    admission.join(request(admission.create_token(), key), "10.0.0.1")
    assert [(node.id, node.name) for node in coordinator.registry.members()] == [(key.id, "attic")]


def test_a_token_that_was_used_is_refused(admission: Admission, key: NodeKey) -> None:
    token = admission.create_token()
    admission.join(request(token, key), "10.0.0.1")
    with pytest.raises(JoinRefused, match="used already"):
        admission.join(request(token, key), "10.0.0.1")


def test_a_token_for_two_machines_lets_two_in(admission: Admission, key: NodeKey) -> None:
    token = admission.create_token(uses=2)
    admission.join(request(token, key), "10.0.0.1")
    admission.join(request(token, key), "10.0.0.1")
    with pytest.raises(JoinRefused, match="used already"):
        admission.join(request(token, key), "10.0.0.1")


def test_an_expired_token_is_refused(admission: Admission, key: NodeKey, clock: Any) -> None:
    token = admission.create_token(ttl_s=60)
    clock.pass_(60)
    with pytest.raises(JoinRefused, match="expired"):
        admission.join(request(token, key), "10.0.0.1")


def test_a_wrong_secret_and_an_unknown_token_are_refused_alike(admission: Admission, key: NodeKey) -> None:
    token = admission.create_token()
    with pytest.raises(JoinRefused) as wrong:
        admission.join(request(token, key, secret="x" * 43), "10.0.0.1")
    with pytest.raises(JoinRefused) as unknown:
        admission.join(request(token, key, token_id="0" * 16), "10.0.0.1")
    assert str(wrong.value) == str(unknown.value)


def test_a_wrong_secret_does_not_use_the_token_up(admission: Admission, key: NodeKey) -> None:
    token = admission.create_token()
    with pytest.raises(JoinRefused):
        admission.join(request(token, key, secret="x" * 43), "10.0.0.1")
    admission.join(request(token, key), "10.0.0.1")


def test_secrets_are_compared_in_constant_time(
    admission: Admission, key: NodeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def watch(a: str, b: str) -> bool:
        compared.append((len(a), len(b)))
        return a == b

    monkeypatch.setattr("sharedllm.nodes.identity.token.hmac.compare_digest", watch)
    token = admission.create_token()
    for changed in ({"secret": "x"}, {"token_id": "0" * 16}):
        with pytest.raises(JoinRefused):
            admission.join(request(token, key, **changed), "10.0.0.1")
    assert compared == [(64, 64), (64, 64)]


def test_the_database_never_holds_a_tokens_secret(admission: Admission, tmp_path: Path) -> None:
    secret = parse_token(admission.create_token()).secret.encode()
    assert not [path for path in tmp_path.glob("coordinator.sqlite3*") if secret in path.read_bytes()]


def test_the_database_is_for_its_owners_eyes_only(engine: Engine, tmp_path: Path) -> None:
    assert (tmp_path / "coordinator.sqlite3").stat().st_mode & 0o077 == 0


def test_the_eleventh_attempt_within_a_minute_is_refused(admission: Admission, key: NodeKey) -> None:
    token = admission.create_token()
    for _ in range(10):
        with pytest.raises(JoinRefused):
            admission.join(request(token, key, secret="guess"), "10.0.0.1")
    with pytest.raises(Busy, match="wait 60 s"):
        admission.join(request(token, key), "10.0.0.1")


def test_another_address_still_gets_in_meanwhile(admission: Admission, key: NodeKey) -> None:
    token = admission.create_token()
    for _ in range(10):
        with pytest.raises(JoinRefused):
            admission.join(request(token, key, secret="guess"), "10.0.0.1")
    admission.join(request(token, key), "10.0.0.2")


def test_after_a_minute_the_address_may_try_again(clock: Any) -> None:
    attempts = Attempts(clock, limit=1)
    attempts.check("10.0.0.1")
    clock.pass_(60)
    attempts.check("10.0.0.1")


def test_one_ipv6_network_counts_as_one_address(clock: Any) -> None:
    attempts = Attempts(clock, limit=1)
    attempts.check("2001:db8::1")
    with pytest.raises(Busy):
        attempts.check("2001:db8::ffff")


def test_an_ipv4_address_written_as_ipv6_is_itself_alone(clock: Any) -> None:
    attempts = Attempts(clock, limit=1)
    attempts.check("::ffff:10.0.0.1")
    attempts.check("::ffff:10.0.0.2")
    with pytest.raises(Busy):
        attempts.check("10.0.0.1")


def test_no_more_addresses_are_remembered_than_were_allowed(clock: Any) -> None:
    attempts = Attempts(clock, limit=1, addresses=2)
    for host in range(3):
        attempts.check(f"10.0.0.{host}")
    attempts.check("10.0.0.0")


def test_a_revoked_node_can_not_join_again_with_its_old_key(
    coordinator: Coordinator, admission: Admission, key: NodeKey
) -> None:
    admission.join(request(admission.create_token(), key), "10.0.0.1")
    coordinator.registry.revoke(key.id)
    with pytest.raises(JoinRefused, match="was revoked"):
        admission.join(request(admission.create_token(), key), "10.0.0.1")


def test_an_expired_certificate_is_renewed_for_who_proves_its_key(
    admission: Admission, key: NodeKey, clock: Any
) -> None:
    admission.join(request(admission.create_token(), key), "10.0.0.1")
    clock.pass_(7 * 24 * 3600)
    pem = admission.renew(None, None, renewal_proof(key, clock()), "10.0.0.1")
    peer = read_peer(pem.encode())
    assert (peer.id, peer.role, peer.expired(clock())) == (key.id, "worker", False)


def test_a_stranger_who_proves_a_key_gets_no_certificate(
    admission: Admission, key: NodeKey, clock: Any
) -> None:
    with pytest.raises(NotAdmitted, match="not, or no longer, a member"):
        admission.renew(None, None, renewal_proof(key, clock()), "10.0.0.1")


def test_a_revoked_node_is_not_renewed(
    coordinator: Coordinator, admission: Admission, key: NodeKey, clock: Any
) -> None:
    admission.join(request(admission.create_token(), key), "10.0.0.1")
    coordinator.registry.revoke(key.id)
    with pytest.raises(NotAdmitted, match="no longer"):
        admission.renew(None, None, renewal_proof(key, clock()), "10.0.0.1")


def test_a_valid_certificate_is_renewed_for_a_day(
    admission: Admission, authority: Authority, key: NodeKey, clock: Any
) -> None:
    pem = authority.issue(key.public_bytes, "primary", now=clock())
    der = _der(pem)
    clock.pass_(16 * 3600)
    peer = read_peer(admission.renew(read_peer(der), der, {}, "10.0.0.1").encode())
    assert (peer.role, peer.not_after) == ("primary", clock() + 24 * 3600)


def test_a_token_made_beside_the_coordinator_is_good(
    admission: Admission, authority: Authority, key: NodeKey, tmp_path: Path, clock: Any
) -> None:
    token = create_token(tmp_path, ttl_s=1e9)
    assert parse_token(token).fingerprint == authority.fingerprint
    admission.join(request(token, key), "10.0.0.1")


def test_a_revocation_made_beside_the_coordinator_holds(
    coordinator: Coordinator, admission: Admission, key: NodeKey, tmp_path: Path
) -> None:
    admission.join(request(admission.create_token(), key), "10.0.0.1")
    assert revoke(tmp_path, "attic") == key.id
    assert coordinator.registry.is_revoked(key.id)


def test_no_federation_is_founded_by_asking_for_a_token_in_the_wrong_place(tmp_path: Path) -> None:
    with pytest.raises(NotAdmitted, match="No coordinator has its state in"):
        create_token(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_a_join_request_never_shows_its_secret_in_a_sentence(admission: Admission, key: NodeKey) -> None:
    asked = request(admission.create_token(), key)
    with pytest.raises(JoinRefused) as refused:
        admission.join(asked.model_copy(update={"token_id": "0" * 16}), "10.0.0.1")
    assert asked.secret not in str(refused.value)


def _der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode())
