"""Who may talk to this server, and what every answer carries.

A page of another site must not be able to use a primary on this machine: not by sending requests across
origins (``Origin``), and not by pointing a name of its own at 127.0.0.1 (``Host``, DNS rebinding). Where a
key is set, everything needs it but the probes and the page's own files.

*Covered*: comparisons in constant time; no key in a log, an error or a URL; headers that keep the page from
loading or embedding anything from elsewhere. *Not covered*: programs of other users of this machine, unless
a key is set; who can read the network between browser and server (put TLS before it).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharedllm.nodes.api.errors import ClientGone, Refused, refusal
from sharedllm.nodes.operations import metrics
from sharedllm.nodes.operations.logs import request

__all__ = ["Guard"]

_PROBES = frozenset({"/healthz", "/readyz"})
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """ASGI middleware: request ids, Host, Origin and key checks, headers, and errors that nothing caught."""

    def __init__(self, app: ASGIApp, api_key: str | None, allowed_hosts: Collection[str]) -> None:
        self.app = app
        self._key = None if api_key is None else _digest(api_key)
        self._hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            with request(Headers(scope=scope).get("x-request-id")) as identifier:
                await self._http(scope, receive, send, identifier)

    async def _http(self, scope: Scope, receive: Receive, send: Send, identifier: str) -> None:
        status = 0

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = identifier
                headers.setdefault("cache-control", "no-store")
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
            await self.app(scope, receive, dressed)
        except ClientGone:
            status = 499  # nobody reads it; what others write into their logs for this
        except Exception as error:
            if status:
                raise  # the server underneath logs it and closes the connection
            await refusal(error).response()(scope, receive, dressed)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.http_requests.labels(route, method, str(status or 499)).inc()

    def _check(self, path: str, headers: Headers) -> None:
        """Let a request through, or raise ``Refused``."""
        if path in _PROBES:
            return
        host = headers.get("host", "")
        if not self._trusts(_name_of(host)):
            raise Refused(
                f"This server does not answer to the name {host[:100]!r}; use localhost, or add the "
                "name to the allowed hosts.",
                status=421,
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Refused(
                f"A page of {origin[:100]!r} may not use this server; open the server's own page.",
                status=403,
                code="origin_not_allowed",
                kind="permission_error",
            )
        if self._key is not None and path != "/" and not path.startswith("/web/"):
            kind, _, key = headers.get("authorization", "").partition(" ")
            if not hmac.compare_digest(_digest(key.strip()), self._key) or kind.lower() != "bearer":
                raise Refused(
                    "The API key is missing or wrong; send it as 'Authorization: Bearer <key>'.",
                    status=401,
                    code="invalid_api_key",
                    kind="authentication_error",
                    headers={"WWW-Authenticate": "Bearer"},
                )

    def _trusts(self, name: str) -> bool:
        if name in self._hosts or name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return self._key is not None and "*" in self._hosts
        # an address can't be rebound; without a key it must still be this machine
        return address.is_loopback or self._key is not None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _name_of(host: str) -> str:
    """The name of a Host header without its port; of ``[::1]:80`` it is ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()
