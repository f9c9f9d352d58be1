"""A coordinator's routes for joining and renewing, over real TLS, that remembers everything it was sent."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from sharedllm.nodes.identity import (
    Authority,
    Identity,
    JoinToken,
    check_renewal_proof,
    new_token,
    read_peer,
    secret_matches,
    server_context,
)
from sharedllm.nodes.identity.token import hash_secret

Answer = tuple[int, dict[str, Any]]


class StandIn:
    """Serves on a free port; ``heard`` has the bodies, ``shown`` the certificates; ``routes`` may change."""

    def __init__(self, authority: Authority, identity: Identity) -> None:
        self.authority, self.identity = authority, identity
        self.token: JoinToken = new_token(authority.fingerprint)
        self.stored = hash_secret(self.token.secret)
        self.heard: list[bytes] = []
        self.shown: list[bytes | None] = []
        self.routes: dict[str, Callable[[dict[str, Any], bytes | None], Answer]] = {
            "/v1/ca": lambda body, der: (200, {"ca_pem": authority.certificate_pem.decode()}),
            "/v1/join": self.join,
            "/v1/renew": self.renew,
        }

    def join(self, body: dict[str, Any], der: bytes | None) -> Answer:
        if not secret_matches(body["secret"], self.stored):
            return 403, {"error": "This join token is unknown or used up."}
        pem = self.authority.issue(bytes.fromhex(body["public_key"]), body["role"])
        return 200, {"certificate_pem": pem.decode()}

    def renew(self, body: dict[str, Any], der: bytes | None) -> Answer:
        public = check_renewal_proof(body, time.time()) if der is None else None
        role = "worker" if der is None else read_peer(der).role
        for identity in self.known:
            if public == identity.key.public_bytes or (der is not None and read_peer(der).id == identity.id):
                return 200, {
                    "certificate_pem": self.authority.issue(identity.key.public_bytes, role).decode()
                }
        return 403, {"error": "This node is not registered."}

    known: tuple[Identity, ...] = ()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> StandIn:
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stand_in.answer(self)

            def do_POST(self) -> None:
                stand_in.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing on the terminal."""

        class Server(http.server.ThreadingHTTPServer):
            def finish_request(self, request: Any, client_address: Any) -> None:
                try:
                    with context.wrap_socket(request, server_side=True) as connected:
                        super().finish_request(connected, client_address)
                except (ssl.SSLError, ConnectionError):
                    pass

        context = server_context(self.identity, client_certificates="optional")
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        self.heard.append(body)
        der = handler.connection.getpeercert(True)  # type: ignore[attr-defined]
        self.shown.append(der)
        status, answer = self.routes[handler.path](json.loads(body or b"{}"), der)
        encoded = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(encoded)))
        handler.end_headers()
        handler.wfile.write(encoded)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
