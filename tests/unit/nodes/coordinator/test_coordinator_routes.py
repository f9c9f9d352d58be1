"""Over real TLS: who may ask what, what is refused while it is read, and what everybody may see."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from sharedllm.nodes.coordinator import CoordinatorClient, PipelineGone, create_token, revoke
from sharedllm.nodes.coordinator.schemas import NodeReport, PipelineRequest
from sharedllm.nodes.errors import JoinRefused, NoPipeline, NotAdmitted
from sharedllm.nodes.identity import Authority, client_context, enrol, join, renew
from sharedllm.nodes.identity.tls import pinned_context

Report = Callable[..., NodeReport]
Wish = Callable[..., PipelineRequest]
ROUTES = [
    ("POST", "/v1/renew"),
    ("POST", "/v1/heartbeat"),
    ("POST", "/v1/leave"),
    ("POST", "/v1/pipelines"),
    ("POST", f"/v1/pipelines/{'0' * 32}/report"),
    ("DELETE", f"/v1/pipelines/{'0' * 32}"),
    ("GET", "/v1/status"),
]
BODIES: dict[str, Any] = {
    "/v1/heartbeat": {"name": "attic", "role": "worker", "started": 1.0},
    f"/v1/pipelines/{'0' * 32}/report": {"kind": "ok"},
    "/v1/pipelines": {
        "model": {
            "name": "tiny",
            "hash": "ab" * 32,
            "layers": 1,
            "layer_bytes": 1,
            "cache_bytes_per_layer": 1,
            "width": 1,
            "activation_bytes": 1,
        }
    },
}


@pytest.fixture
def raw(served: Any) -> Any:
    """Ask with the certificate of a node, or with none."""
    sessions = []

    def ask(method: str, path: str, node: str | None = None, role: str = "worker", **given: Any) -> Any:
        if node is None:
            context = pinned_context(served.identity("worker", "any").ca)
        else:
            context = client_context(served.identity(role, node))
        sessions.append(httpx.Client(verify=context, trust_env=False, timeout=20))
        return sessions[-1].request(method, served.url + path, **given)

    yield ask
    for session in sessions:
        session.close()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/ca"])
def test_what_is_open_needs_no_certificate(raw: Any, path: str) -> None:
    assert raw("GET", path).status_code == 200


@pytest.mark.parametrize(("method", "path"), ROUTES[1:])
def test_every_other_route_is_refused_without_a_certificate(raw: Any, method: str, path: str) -> None:
    reply = raw(method, path, json=BODIES.get(path, {}) if method == "POST" else None)
    assert reply.status_code == 403
    assert "No client certificate was shown" in reply.json()["error"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_revoked_certificate_is_refused_on_every_route(
    served: Any, raw: Any, report: Report, method: str, path: str
) -> None:
    name = f"lost{ROUTES.index((method, path))}"
    role = "primary" if "pipelines" in path else "worker"
    client = served.client(role, name)
    client.heartbeat(report(name, role=role).model_dump())
    revoke(served.state, client.identity.id)
    body = BODIES.get(path, {}) | ({"role": role} if "heartbeat" in path else {})
    reply = raw(method, path, node=name, role=role, json=body if method == "POST" else None)
    assert reply.status_code == 403
    assert "was revoked" in reply.json()["error"]


def test_a_certificate_of_another_federation_is_refused_by_tls(served: Any, tmp_path: Path) -> None:
    stranger = enrol(Authority.load_or_create(tmp_path / "other"), tmp_path / "node", "worker")
    context = pinned_context(served.identity("worker", "any").ca)
    context.load_cert_chain(stranger.folder / "node.crt", stranger.folder / "node.key")
    with (
        httpx.Client(verify=context, trust_env=False) as http,
        pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)),
    ):
        http.get(served.url + "/v1/status")


def test_nothing_older_than_tls_1_3_is_spoken(served: Any) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host, _, port = served.url.removeprefix("https://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)


def test_a_worker_can_not_ask_for_a_pipeline(served: Any, wish: Wish) -> None:
    with pytest.raises(NotAdmitted, match="This is for a primary; the certificate shown is a worker's"):
        served.client("worker", "attic").open_pipeline(wish().model_dump())


def test_an_operator_sees_the_status_and_has_no_heartbeat(served: Any, report: Report) -> None:
    operator = served.client("operator", "me")
    assert operator.status()["lease_s"] == 9
    with pytest.raises(NotAdmitted, match="worker or primary"):
        operator.heartbeat(report("me").model_dump())


def test_a_node_can_not_report_under_another_role(served: Any, report: Report) -> None:
    with pytest.raises(NotAdmitted, match="The report says primary"):
        served.client("worker", "attic").heartbeat(report("attic", role="primary").model_dump())


def test_a_body_over_64_kb_is_refused_with_a_sentence(raw: Any) -> None:
    reply = raw("POST", "/v1/join", content=b"[" * 65_537)
    assert (reply.status_code, "65,536 bytes" in reply.json()["error"]) == (413, True)


def test_a_body_without_a_stated_length_is_refused_as_it_grows(raw: Any) -> None:
    reply = raw("POST", "/v1/join", content=(b" " * 1_024 for _ in range(100)))
    assert reply.status_code == 413


def test_a_body_without_an_end_is_cut_off(served: Any) -> None:
    context = pinned_context(served.identity("worker", "any").ca)
    host, _, port = served.url.removeprefix("https://").partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain) as tls,
    ):
        tls.sendall(b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
        with pytest.raises(OSError):  # noqa: PT011  # reset, broken pipe or TLS alert: as the kernel has it
            tls.sendall(b" " * 64 * 1024 * 1024)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"name": "attic", "role": "worker", "started": 1.0, "surprise": 1}, "surprise"),
        ({"name": "attic", "role": "worker", "started": "1"}, "started"),
        ({"name": "attic", "role": "worker", "started": 1.0, "share": 2.0}, "share"),
        ({"name": "a\x1b[2J", "role": "worker", "started": 1.0}, "name"),
        ({"name": "attic", "role": "worker", "started": 1.0, "endpoints": [{"kind": "lan"}]}, "endpoints"),
        ([], "body"),
    ],
)
def test_a_misunderstood_body_is_refused_and_the_field_named(raw: Any, body: Any, named: str) -> None:
    reply = raw("POST", "/v1/heartbeat", node="attic", json=body)
    assert reply.status_code == 422
    assert named in reply.json()["error"]


@pytest.mark.parametrize("body", [b"{", b"[" * 60_000, b'{"started": NaN}', b"\xff"])
def test_what_is_not_json_is_refused_with_a_sentence(raw: Any, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    reply = raw("POST", "/v1/heartbeat", node="attic", content=body, headers=headers)
    assert reply.status_code in (400, 422)
    assert reply.json()["error"]


def test_a_refused_join_does_not_repeat_its_secret(raw: Any) -> None:
    reply = raw("POST", "/v1/join", json={"secret": "hunter2", "token_id": "no", "role": "worker"})
    assert "hunter2" not in reply.text


def test_a_path_that_is_not_answered_gets_a_sentence(raw: Any) -> None:
    reply = raw("GET", "/docs")
    assert (reply.status_code, "GET /docs is not answered here" in reply.json()["error"]) == (404, True)


def test_a_machine_joins_with_a_token_and_is_heard(served: Any, report: Report, tmp_path: Path) -> None:
    token = create_token(served.state)
    identity = join(served.url, token, "worker", tmp_path / "joined", "cellar")
    client = CoordinatorClient(identity, served.url)
    assert client.heartbeat(report("cellar").model_dump())["lease_s"] == 9
    assert identity.id in [node["id"] for node in client.status()["nodes"] if node["state"] == "up"]
    client.close()


def test_a_token_is_refused_the_second_time(served: Any, tmp_path: Path) -> None:
    token = create_token(served.state)
    join(served.url, token, "worker", tmp_path / "first", "first")
    with pytest.raises(JoinRefused, match="used already"):
        join(served.url, token, "worker", tmp_path / "second", "second")


def test_a_certificate_is_renewed(served: Any) -> None:
    identity = served.identity("worker", "renewing")
    before = identity.certificate
    renew(identity, served.url)
    assert identity.certificate != before
    assert identity.peer.role == "worker"


def test_a_heartbeat_tells_who_was_revoked(served: Any, report: Report) -> None:
    thief, honest = served.client("worker", "thief"), served.client("worker", "honest")
    thief.heartbeat(report("thief").model_dump())
    revoke(served.state, thief.identity.id)
    assert thief.identity.id in honest.heartbeat(report("honest").model_dump())["revoked"]
    with pytest.raises(NotAdmitted, match="was revoked"):
        thief.heartbeat(report("thief").model_dump())


def test_a_model_without_a_home_is_no_pipeline_for_the_client(
    served: Any, report: Report, wish: Wish
) -> None:
    desk = served.client("primary", "lonely")
    desk.heartbeat(report("lonely", role="primary").model_dump())
    with pytest.raises(NoPipeline, match="no home"):
        desk.open_pipeline(wish(model={"hash": "ef" * 32}).model_dump())


def test_a_pipeline_is_opened_reported_shown_and_closed(served: Any, report: Report, wish: Wish) -> None:
    model = "12" * 32
    desk, attic = served.client("primary", "desk"), served.client("worker", "attic")
    desk.heartbeat(report("desk", role="primary").model_dump())
    attic.heartbeat(report("attic", models=[model]).model_dump())
    reply = desk.open_pipeline(wish(model={"hash": model}).model_dump())
    id = reply["pipeline"]
    desk.report(id, {"kind": "ok", "speeds": {attic.identity.id: 0.001}, "tokens": 7, "token_s": 0.02})
    (shown,) = [p for p in attic.status()["pipelines"] if p["id"] == id]
    assert (shown["tokens"], shown["tokens_per_s"]) == (7, pytest.approx(50))
    assert shown["floor_percent"] == pytest.approx(100 * reply["floor_s"] / 0.02)
    (node,) = [node for node in attic.status()["nodes"] if node["id"] == attic.identity.id]
    assert node["spans"] == [
        {"pipeline": id, "model": "tiny", "start": 0, "stop": 10, "s_per_layer": 0.001, "measured": True}
    ]
    desk.close_pipeline(id)
    with pytest.raises(PipelineGone):
        desk.report(id, {"kind": "ok"})


def test_a_node_that_leaves_is_shown_as_gone(served: Any, report: Report) -> None:
    leaver = served.client("worker", "leaver")
    leaver.heartbeat(report("leaver").model_dump())
    leaver.leave()
    states = {node["name"]: node["state"] for node in leaver.status()["nodes"]}
    assert states["leaver"] == "gone"


def test_the_status_is_plain_json_without_a_secret(served: Any) -> None:
    told = json.dumps(served.client("operator", "me").status())
    assert "ticket" not in told
    assert "PRIVATE" not in told
