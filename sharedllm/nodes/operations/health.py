"""``/healthz``, ``/readyz`` and ``/metrics`` for a role without a web framework, on loopback by default.

*Covered*: slow clients (5 s in all), many clients (16 at once, the rest is closed), long request lines
(65,536 bytes, the standard library's limit), bodies (never read). *Not covered*: authentication; what it
serves is no secret, but bind it to an address that only your monitoring reaches.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from sharedllm.nodes.operations import metrics
from sharedllm.nodes.operations.errors import PortTaken

__all__ = ["Health"]

Ready = Callable[[], tuple[bool, str]]

_log = logging.getLogger(__name__)
_CLIENT_S = 5.0
_POLL_S = 0.1  # how long closing may take
_MAX_CLIENTS = 16


class Health:
    """A thread that answers probes; ``ready`` returns whether work can be done and a sentence about it.

    ``collect`` runs before ``/metrics`` and ``/readyz``, for figures that are cheaper to read than to keep.
    Raises ``PortTaken`` when made. ``url`` is where it listens (port 0 picks a free one).
    """

    def __init__(
        self, ready: Ready, host: str = "127.0.0.1", port: int = 0, collect: Callable[[], None] | None = None
    ) -> None:
        self._ready, self._collect = ready, collect or (lambda: None)
        try:
            self._server = _Server((host, port), _handler(self))
        except OSError as error:
            raise PortTaken(
                f"Port {port} of {host} can't be used for health and metrics ({error.strerror}); "
                "give another with --operations."
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="health", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering; returns when the thread has ended."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body for a path."""
        match path.split("?")[0]:
            case "/healthz":
                return 200, "application/json", _body(True, "The process is running.")
            case "/readyz":
                is_ready, sentence = self._ready()
                return 200 if is_ready else 503, "application/json", _body(is_ready, sentence)
            case "/metrics":
                self._collect()
                return 200, metrics.CONTENT_TYPE, metrics.exposition()
            case _:
                sentence = "There is nothing here; ask for /healthz, /readyz or /metrics."
                return 404, "application/json", _body(False, sentence)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = threading.BoundedSemaphore(_MAX_CLIENTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        deadline = threading.Timer(_CLIENT_S, _hang_up, (request,))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a probe went away", exc_info=True)


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "sharedllm", ""

        def do_GET(self) -> None:
            try:
                status, content_type, body = health._answer(self.path)
            except Exception:
                _log.exception("a probe of %s failed", self.path[:80])
                sentence = "The probe itself failed; the log says why."
                status, content_type, body = 500, "application/json", _body(False, sentence)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            _log.debug(format, *args)

    return Handler


def _hang_up(client: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is gone already
        client.shutdown(socket.SHUT_RDWR)


def _body(good: bool, sentence: str) -> bytes:
    return json.dumps({"ok": good, "sentence": sentence}).encode() + b"\n"
