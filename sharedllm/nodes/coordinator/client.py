"""What a node says to its coordinator: one method a route, each with a deadline, and back-off until then.

The certificate of whoever answers is looked at before the first byte is sent: it must be the coordinator's,
not just any node's of the federation.

*Covered*: a coordinator that restarts or hangs, an answer without end, a certificate that was renewed
meanwhile. *Not covered*: a request that was carried out although its answer was lost is sent again; a second
pipeline takes the first one's place, and tokens may be counted twice.
"""

from __future__ import annotations

import json
import random
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.errors import Busy, CoordinatorAway, NoPipeline, NotAdmitted
from sharedllm.nodes.identity import COORDINATOR_NAME, Identity, read_peer, renew
from sharedllm.nodes.identity.tls import pinned_context

__all__ = ["CoordinatorClient", "PipelineGone", "RequestRefused"]

_ANSWER_BYTES = 16 * 1024 * 1024
_REFUSAL_BYTES = 64 * 1024
_IDLE_S = 15.0
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 2.0


class RequestRefused(SharedLLMError):
    """The coordinator did not understand a request, or can't do it."""


class PipelineGone(RequestRefused):
    """The coordinator has no such pipeline of this primary; it needs a new one."""


class CoordinatorClient:
    """A node's side of the coordinator's routes. Blocking; safe for many threads.

    Every method raises ``CoordinatorAway`` when there is no answer within its deadline, ``NotAdmitted`` when
    this node is refused or the other end is not the coordinator, ``RequestRefused`` for what it can't do.
    """

    def __init__(self, identity: Identity, url: str) -> None:
        self.identity, self.url = identity, url.rstrip("/")
        self._lock = threading.Lock()
        self._certificate = b""
        self._http: httpx.Client | None = None
        self._retired: httpx.Client | None = None

    def heartbeat(self, report: Mapping[str, Any], *, deadline_s: float = 3.0) -> dict[str, Any]:
        """Renew this node's lease; returns the lease, who is revoked, whether it is paused, and a relay."""
        return self._ask("POST", "/v1/heartbeat", report, deadline_s)

    def leave(self, *, deadline_s: float = 3.0) -> None:
        """End this node's lease at once."""
        self._ask("POST", "/v1/leave", {}, deadline_s)

    def open_pipeline(self, request: Mapping[str, Any], *, deadline_s: float = 15.0) -> dict[str, Any]:
        """Get a pipeline with its tickets and spares. Raises ``NoPipeline`` when the model has no home."""
        return self._ask("POST", "/v1/pipelines", request, deadline_s)

    def report(self, pipeline: str, report: Mapping[str, Any], *, deadline_s: float = 3.0) -> None:
        """Say how a pipeline does, or which worker failed. Raises ``PipelineGone``."""
        self._ask("POST", f"/v1/pipelines/{pipeline}/report", report, deadline_s)

    def close_pipeline(self, pipeline: str, *, deadline_s: float = 3.0) -> None:
        """Give a pipeline up. Raises ``PipelineGone``."""
        self._ask("DELETE", f"/v1/pipelines/{pipeline}", None, deadline_s)

    def status(self, *, deadline_s: float = 5.0) -> dict[str, Any]:
        """The whole federation, as ``sharedllm status`` shows it."""
        return self._ask("GET", "/v1/status", None, deadline_s)

    def renew(self, *, deadline_s: float = 15.0) -> None:
        """Get this node a new certificate; later requests show it."""
        renew(self.identity, self.url, deadline_s=deadline_s)

    def close(self) -> None:
        """Close idle connections; the client may be used again."""
        with self._lock:
            https, self._http, self._retired = (self._http, self._retired), None, None
        for http in https:
            if http is not None:
                http.close()

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, deadline_s: float
    ) -> dict[str, Any]:
        until_s, wait_s = time.monotonic() + deadline_s, _FIRST_WAIT_S
        while True:
            try:
                return self._once(method, path, body, until_s)
            except CoordinatorAway:
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                pause_s = wait_s * random.uniform(0.5, 1.0)
                if time.monotonic() + pause_s >= until_s:
                    raise
                time.sleep(pause_s)

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None, until_s: float) -> dict[str, Any]:
        left_s = max(until_s - time.monotonic(), 0.05)
        with self._sent(method, path, left_s, json=body) as response:
            answer = bytearray()
            for part in response.iter_bytes():
                answer += part
                if len(answer) > _ANSWER_BYTES or time.monotonic() > until_s:
                    raise CoordinatorAway(f"The coordinator at {self.url} answers without an end.")
        return _understood(response, bytes(answer), self.url)

    @contextmanager
    def streaming(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Iterable[bytes] | None = None,
    ) -> Iterator[httpx.Response]:
        """Ask once for something long: the answer's head, its body yet to be read (``iter_raw``).

        No deadline but 15 s without a byte. Also raises in the body what every method raises.
        """
        with self._sent(method, path, _IDLE_S, headers=headers, content=content) as response:
            if response.status_code >= 300:
                refusal = bytearray()
                for part in response.iter_raw():
                    refusal += part
                    if len(refusal) > _REFUSAL_BYTES:
                        break
                _understood(response, bytes(refusal), self.url)
            yield response

    @contextmanager
    def _sent(self, method: str, path: str, timeout_s: float, **body: Any) -> Iterator[httpx.Response]:
        """The answer to a request, still open; what goes wrong on the way becomes a sentence."""
        http = self._client()
        extensions = {"sni_hostname": COORDINATOR_NAME, "trace": _only_the_coordinator}
        try:
            asked = http.build_request(
                method, self.url + path, timeout=timeout_s, extensions=extensions, **body
            )
            response = http.send(asked, stream=True)
            try:
                yield response
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise NotAdmitted(
                    f"The machine at {self.url} is not this federation's coordinator: its certificate is not "
                    "from our authority, or a clock is wrong."
                ) from None
            why = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
            raise CoordinatorAway(
                f"The coordinator at {self.url} can't be reached ({why or type(error).__name__}). "
                "Is it running, and does the firewall let this port through?"
            ) from error

    def _client(self) -> httpx.Client:
        """Connections that show the present certificate; another thread may still use those before."""
        with self._lock:
            if self._http is None or self._certificate != self.identity.certificate:
                if self._retired is not None:
                    self._retired.close()
                self._retired = self._http
                # Not a context that a renewal changes: another thread may be in a handshake with it
                context = pinned_context(self.identity.ca)
                context.load_cert_chain(self.identity.folder / "node.crt", self.identity.folder / "node.key")
                self._certificate = self.identity.certificate
                self._http = httpx.Client(verify=context, trust_env=False, follow_redirects=False)
            return self._http


def _only_the_coordinator(event: str, info: dict[str, Any]) -> None:
    """Look at the certificate after the handshake and before the request (a hook of httpcore)."""
    if event == "connection.start_tls.complete":
        stream = info["return_value"]
        try:
            if read_peer(stream.get_extra_info("ssl_object").getpeercert(True)).role != "coordinator":
                raise NotAdmitted("A node of this federation answered that is not its coordinator.")
        except NotAdmitted:
            stream.close()
            raise


def _understood(response: httpx.Response, answer: bytes, url: str) -> dict[str, Any]:
    try:
        decoded = json.loads(answer)
    except (ValueError, RecursionError):
        decoded = None
    code = response.status_code
    if code < 300 and isinstance(decoded, dict):
        return decoded
    said = str(decoded.get("error", "")) if isinstance(decoded, dict) else ""
    said = said or f"The machine at {url} answered with HTTP {code} and no sentence; is it a coordinator?"
    if code >= 500 or code < 400:
        raise CoordinatorAway(said)
    if code == 429:
        waiting = response.headers.get("Retry-After", "")
        raise Busy(said, float(waiting) if waiting.isdigit() else 10.0)
    kinds: dict[int, type[SharedLLMError]] = {403: NotAdmitted, 404: PipelineGone, 409: NoPipeline}
    raise kinds.get(code, RequestRefused)(said)
