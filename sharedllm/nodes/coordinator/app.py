"""The coordinator's routes. Who asks is what the connection's certificate says, never what a body says.

*Covered*: bodies over 64 KB are refused while they are read, and slow ones after 10 s; unknown fields; a
revoked or expired certificate on a connection that is still open; a role that a route is not for. *Not
covered*: a member that asks too often; its certificate can be revoked.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.coordinator.library import UPLOADS, Shelf, library_routes
from sharedllm.nodes.coordinator.pipelines import LacksHome, UnknownPipeline
from sharedllm.nodes.coordinator.schemas import (
    HeartbeatReply,
    JoinRequest,
    NodeReport,
    Nothing,
    PipelineReport,
    PipelineRequest,
    RenewRequest,
    sentence,
)
from sharedllm.nodes.coordinator.status import Coordinator
from sharedllm.nodes.errors import Busy, JoinRefused, NotAdmitted
from sharedllm.nodes.identity import Peer, read_peer
from sharedllm.nodes.operations import metrics

__all__ = ["BODY_BYTES", "create_app"]

BODY_BYTES = 64 * 1024
_BODY_S = 10.0
_DRAINED_BYTES = 1024 * 1024

_log = logging.getLogger(__name__)


def create_app(coordinator: Coordinator, shelf: Shelf | None = None) -> FastAPI:
    """The routes over ``coordinator``, and the library's if there is a ``shelf``.

    The server puts ``peer_der`` into their scope's extensions.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.coordinator = coordinator
    app.add_middleware(_Bounded)
    _speak_in_sentences(app)
    _open_routes(app, coordinator)
    _member_routes(app, coordinator)
    _pipeline_routes(app, coordinator)
    if shelf is not None:
        library_routes(app, shelf, _member())
    return app


def _member(*roles: str) -> Any:
    """A dependency: the certified node that asks, if its role is one of ``roles`` (none: any)."""

    def admitted(request: Request) -> Peer:
        return _admit(request, roles)

    return Depends(admitted)


def _admit(request: Request, roles: tuple[str, ...] = ()) -> Peer:
    coordinator: Coordinator = request.app.state.coordinator
    peer = read_peer(_certificate(request))
    if peer.expired(coordinator.registry.clock()):
        raise NotAdmitted("The certificate expired while the connection was open; renew it, connect anew.")
    if coordinator.registry.is_revoked(peer.id):
        raise NotAdmitted(
            f"Node {peer.id} was revoked by the federation's operator; ask there, and join with a new key."
        )
    if roles and peer.role not in roles:
        raise NotAdmitted(f"This is for a {' or '.join(roles)}; the certificate shown is a {peer.role}'s.")
    return peer


def _open_routes(app: FastAPI, coordinator: Coordinator) -> None:
    """What needs no certificate."""

    @app.get("/healthz")
    def healthz() -> dict[str, Any]:
        return {"ok": True, "sentence": "The process is running."}

    @app.get("/readyz")
    def readyz() -> JSONResponse:
        ready, why = coordinator.ready()
        return JSONResponse({"ok": ready, "sentence": why}, status_code=200 if ready else 503)

    @app.get("/v1/ca")
    def ca() -> dict[str, str]:
        return {"ca_pem": coordinator.admission.ca_pem}

    @app.post("/v1/join")
    def join(body: JoinRequest, request: Request) -> dict[str, Any]:
        try:
            reply = coordinator.admission.join(body, _address(request))
        except SharedLLMError:
            metrics.joins.labels("refused").inc()
            raise
        metrics.joins.labels("joined").inc()
        _log.info("%s joined as %s %s", body.name, body.role, reply["node_id"])
        return reply

    @app.post("/v1/renew")
    def renew(body: RenewRequest, request: Request) -> dict[str, str]:
        der = _certificate(request)
        peer = _admit(request) if der is not None else None
        proof = body.model_dump(exclude_none=True)
        return {"certificate_pem": coordinator.admission.renew(peer, der, proof, _address(request))}


def _member_routes(app: FastAPI, coordinator: Coordinator) -> None:
    """What every node of the federation does."""
    registry = coordinator.registry

    @app.post("/v1/heartbeat")
    def heartbeat(body: NodeReport, request: Request, peer: _Serving) -> HeartbeatReply:
        if body.role != peer.role:
            raise NotAdmitted(f"The report says {body.role}, but the certificate shown is a {peer.role}'s.")
        registry.heartbeat(peer.id, body)
        metrics.heartbeats.inc()
        relay = None
        if coordinator.relay is not None:
            id, port = coordinator.relay
            # the name by which this node reaches us is one that it can reach the relay by
            relay = {"kind": "relay", "host": request.url.hostname, "port": port, "relay": id}
        else:
            relay = registry.volunteer()
        gossip = None
        if coordinator.gossip is not None:
            id, port = coordinator.gossip
            gossip = {"id": id, "host": request.url.hostname, "port": port}
        return HeartbeatReply(
            lease_s=registry.lease_s,
            revoked=registry.revoked(),
            paused=peer.id in registry.paused(),
            relay=relay,
            gossip=gossip,
        )

    @app.post("/v1/leave")
    def leave(body: Nothing, peer: _Serving) -> Nothing:
        registry.leave(peer.id)
        return body

    @app.get("/v1/status")
    def show(peer: _Anyone) -> dict[str, Any]:
        return coordinator.status()


def _pipeline_routes(app: FastAPI, coordinator: Coordinator) -> None:
    """What primaries do."""
    pipelines = coordinator.pipelines

    @app.post("/v1/pipelines")
    def open_one(body: PipelineRequest, peer: _Primary) -> dict[str, Any]:
        return pipelines.open(peer.id, body)

    @app.post("/v1/pipelines/{pipeline}/report")
    def report(pipeline: str, body: PipelineReport, peer: _Primary) -> Nothing:
        pipelines.report(peer.id, pipeline, body)
        return Nothing()

    @app.delete("/v1/pipelines/{pipeline}")
    def close(pipeline: str, peer: _Primary) -> Nothing:
        pipelines.close(peer.id, pipeline)
        return Nothing()


_Anyone = Annotated[Peer, _member()]
_Serving = Annotated[Peer, _member("worker", "primary")]
_Primary = Annotated[Peer, _member("primary")]


def _certificate(request: Request) -> bytes | None:
    found: bytes | None = request.scope.get("extensions", {}).get("sharedllm", {}).get("peer_der")
    return found


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _speak_in_sentences(app: FastAPI) -> None:
    """Turn every refusal into ``{"error": sentence}`` with the status that goes with it."""
    codes: list[tuple[type[Exception], int]] = [
        (NotAdmitted, 403),
        (JoinRefused, 403),
        (UnknownPipeline, 404),
        (SharedLLMError, 400),
    ]
    for kind, code in codes:

        def answer(request: Request, error: Exception, code: int = code) -> JSONResponse:
            return JSONResponse({"error": str(error)}, status_code=code)

        app.exception_handler(kind)(answer)

    @app.exception_handler(Busy)
    def busy(request: Request, error: Busy) -> JSONResponse:
        headers = {"Retry-After": str(max(1, round(error.retry_after_s + 0.5)))}
        return JSONResponse({"error": str(error)}, status_code=429, headers=headers)

    @app.exception_handler(LacksHome)
    def lacks_home(request: Request, error: LacksHome) -> JSONResponse:
        body = {"error": str(error), "layers": list(error.layers), "missing_bytes": error.missing_bytes}
        return JSONResponse({**body, "left_out": error.left_out}, status_code=409)

    @app.exception_handler(RequestValidationError)
    def misunderstood(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": sentence(error.errors())}, status_code=422)

    @app.exception_handler(HTTPException)
    def unknown(request: Request, error: HTTPException) -> JSONResponse:
        said = f"{request.method} {request.url.path[:80]} is not answered here ({error.detail})."
        return JSONResponse({"error": said}, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> JSONResponse:
        said = "The coordinator failed on this request; its log says why."
        return JSONResponse({"error": said}, status_code=500)


@dataclasses.dataclass(frozen=True)
class _Bounded:
    """Reads a body, at most ``BODY_BYTES`` and ``_BODY_S`` of it, before anything else sees the request.

    Uploads of blobs are streamed instead, by a route that bounds them itself.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streamed = scope.get("method") == "PUT" and scope["path"].startswith(UPLOADS)
        if scope["type"] != "http" or streamed:
            await self.app(scope, receive, send)
            return
        body, received, more = bytearray(), 0, True
        refusal = None
        try:
            async with asyncio.timeout(_BODY_S):
                while more and received <= _DRAINED_BYTES:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    part = message.get("body", b"")
                    more, received = message.get("more_body", False), received + len(part)
                    if received > BODY_BYTES:
                        # What follows is read and dropped, so that the sender comes to read the refusal
                        refusal, part = _TOO_LONG, b""
                        body.clear()
                    body += part
        except TimeoutError:
            refusal = 408, f"The request did not arrive within {_BODY_S:.0f} s; send it again in one go."
        if refusal is not None:
            close = {"Connection": "close"}
            answer = JSONResponse({"error": refusal[1]}, status_code=refusal[0], headers=close)
            await answer(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, replay, send)


_TOO_LONG = 413, f"A request may have {BODY_BYTES:,} bytes; this one has more. Send fewer entries."
