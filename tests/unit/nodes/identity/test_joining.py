"""A machine joins the federation that its token names, and its secret goes nowhere else."""

from __future__ import annotations

import logging
import socket
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from sharedllm.nodes.errors import CoordinatorAway, JoinRefused, NotAdmitted
from sharedllm.nodes.identity import (
    Authority,
    Identity,
    JoinToken,
    coordinator_url,
    enrol,
    join,
    new_token,
    parse_token,
    renew,
    renewal_proof,
)
from sharedllm.nodes.identity.joining import check_renewal_proof
from tests.unit.nodes.identity.stand_in import StandIn


def test_a_token_is_the_whole_work_of_joining(coordinator: StandIn, tmp_path: Path) -> None:
    joined = join(coordinator.url, coordinator.token.format(), "worker", tmp_path / "new", "den")
    assert joined.role == "worker"
    assert Identity.load(tmp_path / "new").id == joined.id
    assert coordinator_url(tmp_path / "new") == coordinator.url


def test_what_joining_wrote_is_readable_by_its_owner_alone_where_it_must_be(
    coordinator: StandIn, tmp_path: Path
) -> None:
    join(coordinator.url, coordinator.token, "worker", tmp_path / "new", "den")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
    assert modes == {"node.key": 0o600, "node.crt": 0o644, "ca.crt": 0o644, "coordinator.url": 0o644}
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


def heard_secret(coordinator: StandIn, secret: str) -> bool:
    return any(secret.encode() in body for body in coordinator.heard)


def test_a_coordinator_of_another_federation_never_hears_the_secret(
    coordinator: StandIn, tmp_path: Path
) -> None:
    token = new_token("0" * 64)
    with pytest.raises(JoinRefused, match="The token's secret was not sent"):
        join(coordinator.url, token, "worker", tmp_path / "new", "den")
    assert not heard_secret(coordinator, token.secret)


def test_one_that_copied_our_authority_never_hears_the_secret(
    coordinator: StandIn, authority: Authority, tmp_path: Path
) -> None:
    false = Authority.load_or_create(tmp_path / "false")
    with StandIn(false, enrol(false, tmp_path / "imposter", "coordinator")) as imposter:
        imposter.routes["/v1/ca"] = lambda body, der: (200, {"ca_pem": authority.certificate_pem.decode()})
        with pytest.raises(JoinRefused, match="is not this federation's coordinator"):
            join(imposter.url, coordinator.token, "worker", tmp_path / "new", "den")
        assert not heard_secret(imposter, coordinator.token.secret)


def test_a_mere_worker_of_the_federation_never_hears_the_secret(
    coordinator: StandIn, authority: Authority, worker: Identity, tmp_path: Path
) -> None:
    with StandIn(authority, worker) as imposter:
        with pytest.raises(JoinRefused, match="is not its coordinator"):
            join(imposter.url, coordinator.token, "worker", tmp_path / "new", "den")
        assert not heard_secret(imposter, coordinator.token.secret)


def test_a_token_that_is_used_up_is_refused_in_the_coordinators_words(
    coordinator: StandIn, authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(JoinRefused, match="unknown or used up"):
        join(coordinator.url, new_token(authority.fingerprint), "worker", tmp_path / "new", "den")
    assert not (tmp_path / "new" / "node.crt").exists()


def test_a_certificate_for_another_role_is_not_taken(coordinator: StandIn, tmp_path: Path) -> None:
    def demote(body: dict[str, Any], der: bytes | None) -> tuple[int, dict[str, Any]]:
        return coordinator.join({**body, "role": "operator"}, der)

    coordinator.routes["/v1/join"] = demote
    with pytest.raises(JoinRefused, match="another role than worker"):
        join(coordinator.url, coordinator.token, "worker", tmp_path / "new", "den")


def test_an_endless_answer_is_cut_off(coordinator: StandIn, tmp_path: Path) -> None:
    coordinator.routes["/v1/ca"] = lambda body, der: (200, {"ca_pem": "x" * 100_000})
    with pytest.raises(CoordinatorAway, match="answered more than 65536 bytes"):
        join(coordinator.url, coordinator.token, "worker", tmp_path / "new", "den")


def test_a_coordinator_that_says_nothing_is_away(coordinator: StandIn, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CoordinatorAway, match="can't be reached"):
            join(url, coordinator.token, "worker", tmp_path / "new", "den", deadline_s=0.2)


@pytest.mark.parametrize(
    "url",
    ["", "http://h:1", "https://", "https://h:x", "https://u:p@h", "https://h/x", "https://h/?t=1", "h:8420"],
)
def test_what_is_no_address_is_told(url: str, coordinator: StandIn, tmp_path: Path) -> None:
    with pytest.raises(CoordinatorAway, match="expected https://HOST:PORT"):
        join(url, coordinator.token, "worker", tmp_path / "new", "den")


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "=", lambda t: "SL2" + t[3:], lambda t: ""]
)
def test_what_is_no_token_is_told_without_repeating_it(change: Any) -> None:
    given = change(new_token("a" * 64).format())
    with pytest.raises(JoinRefused, match="begins with SL1-") as caught:
        parse_token(given)
    assert not given or given[80:] not in str(caught.value)


def test_no_log_error_or_repr_holds_a_secret(
    coordinator: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = []
    wrong = JoinToken(coordinator.token.fingerprint, coordinator.token.id, new_token("a" * 64).secret)
    for token in (wrong, JoinToken("0" * 64, wrong.id, wrong.secret)):
        try:
            join(coordinator.url, token, "worker", tmp_path / "new", "den")
        except JoinRefused as error:
            told += [repr(token), *traceback.format_exception(error)]
    joined = join(coordinator.url, coordinator.token, "worker", tmp_path / "new", "den")
    said = "\n".join([*told, caplog.text, repr(joined.key), repr(coordinator.token)])
    assert wrong.secret not in said
    assert coordinator.token.secret not in said
    assert "PRIVATE KEY" not in said


def test_renewing_shows_the_old_certificate_and_stores_the_new(
    coordinator: StandIn, worker: Identity
) -> None:
    coordinator.known = (worker,)
    old = worker.certificate
    renew(worker, coordinator.url)
    assert coordinator.shown[-1] is not None
    assert worker.certificate != old
    assert Identity.load(worker.folder).certificate == worker.certificate


def expire(authority: Authority, identity: Identity) -> None:
    key = identity.key.public_bytes
    (identity.folder / "node.crt").write_bytes(authority.issue(key, identity.role, seconds=60, now=1e9))
    identity.reload()


def test_a_node_that_slept_past_its_certificate_proves_its_key(
    coordinator: StandIn, authority: Authority, worker: Identity
) -> None:
    coordinator.known = (worker,)
    expire(authority, worker)
    renew(worker, coordinator.url)
    assert coordinator.shown[-1] is None
    assert not worker.peer.expired(time.time())


def test_a_node_that_may_not_renew_is_told(coordinator: StandIn, worker: Identity) -> None:
    with pytest.raises(NotAdmitted, match="not registered"):
        renew(worker, coordinator.url)


def test_a_renewal_of_another_nodes_key_is_refused(worker: Identity, primary: Identity) -> None:
    proof = {**renewal_proof(worker.key, 1e9), "public_key": primary.key.public_bytes.hex()}
    with pytest.raises(NotAdmitted, match="not signed by that node's key"):
        check_renewal_proof(proof, 1e9)


def test_a_stale_renewal_is_refused(worker: Identity) -> None:
    with pytest.raises(NotAdmitted, match="400 s before this machine's clock"):
        check_renewal_proof(renewal_proof(worker.key, 1e9), 1e9 + 400)


@pytest.mark.parametrize(
    "proof", [{}, {"public_key": "zz"}, {"public_key": "", "signature": "", "at": "now"}]
)
def test_what_is_no_renewal_is_refused(proof: dict[str, Any]) -> None:
    with pytest.raises(NotAdmitted, match="needs public_key, at and signature"):
        check_renewal_proof(proof, 1e9)
