"""One small JSON request to a coordinator, for those who have no certificate yet or need a new one.

Only the standard library, so that joining imports no HTTP client. Answers are bounded in bytes and in time,
as a machine that only claims to be a coordinator may answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.errors import CoordinatorAway, NotAdmitted
from sharedllm.nodes.identity.certificates import read_peer
from sharedllm.nodes.identity.tls import COORDINATOR_NAME

__all__ = ["ANSWER_BYTES", "DEFAULT_PORT", "Refused", "address_of", "exchange"]

ANSWER_BYTES = 64 * 1024
DEFAULT_PORT = 8420
_SENTENCE_CHARACTERS = 512


class Refused(SharedLLMError):
    """The coordinator answered, and said no."""


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a coordinator's URL, ``https://HOST[:PORT]``.

    Raises ``CoordinatorAway`` for anything else.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        host = None
    if (
        host is None
        or parts._replace(netloc="", path=parts.path.rstrip("/")) != ("https", "", "", "", "")
        or "@" in url
    ):
        raise CoordinatorAway(
            "What was given as the coordinator's address is none; expected https://HOST:PORT, "
            f"for example https://192.168.1.10:{DEFAULT_PORT}."
        )
    return host, port


def exchange(
    url: str,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    context: ssl.SSLContext,
    *,
    proven: bool,
    deadline_s: float,
) -> dict[str, Any]:
    """The JSON object that ``url`` answers; ``proven``: only if its certificate is a coordinator's.

    Nothing is sent before that check. Raises ``CoordinatorAway`` when it can't be reached or answers
    nonsense, ``NotAdmitted`` when it is another, ``Refused`` with its sentence when it says no.
    """
    host, port = address_of(url)
    with _connected(host, port, context, deadline_s) as connected:
        if proven and read_peer(connected.getpeercert(True)).role != "coordinator":
            raise NotAdmitted(
                f"The node at {host}:{port} belongs to the federation but is not its coordinator."
            )
        connection = http.client.HTTPConnection(host, port)
        connection.sock = connected
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        response = connection.getresponse()
        answer = response.read(ANSWER_BYTES + 1)
    if len(answer) > ANSWER_BYTES:
        raise CoordinatorAway(f"{host}:{port} answered more than {ANSWER_BYTES} bytes; it is no coordinator.")
    return _object(answer, response.status, f"{host}:{port}")


@contextlib.contextmanager
def _connected(host: str, port: int, context: ssl.SSLContext, deadline_s: float) -> Iterator[ssl.SSLSocket]:
    late = threading.Event()
    try:
        with socket.create_connection((host, port), timeout=deadline_s) as raw:

            def cut() -> None:
                late.set()
                # one system call, on the number that the TLS socket shares; closing is the owner's
                with contextlib.suppress(OSError):
                    plain.shutdown(socket.SHUT_RDWR)

            with raw.dup() as plain:
                timer = threading.Timer(deadline_s, cut)
                timer.daemon = True
                timer.start()
                try:
                    with context.wrap_socket(raw, server_hostname=COORDINATOR_NAME) as connected:
                        yield connected
                finally:
                    timer.cancel()
                    timer.join()
    except ssl.SSLCertVerificationError:
        raise NotAdmitted(
            f"The machine at {host}:{port} is not this federation's coordinator: its certificate is not "
            "from our authority, or a clock is wrong."
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = f"no answer in {deadline_s:.0f} s" if late.is_set() else str(error) or type(error).__name__
        raise CoordinatorAway(
            f"The coordinator at {host}:{port} can't be reached ({reason}). Is it running, and does the "
            "firewall let this port through?"
        ) from error


def _object(answer: bytes, status: int, address: str) -> dict[str, Any]:
    try:
        decoded = json.loads(answer)
    except (ValueError, RecursionError):
        decoded = None
    if status < 300 and isinstance(decoded, dict):
        return decoded
    sentence = ""
    if isinstance(decoded, dict):
        said = decoded.get("error", decoded.get("detail"))
        if isinstance(said, str):
            sentence = "".join(c for c in said[:_SENTENCE_CHARACTERS] if c.isprintable())
    if 400 <= status < 500:
        raise Refused(sentence or f"The coordinator at {address} refused the request (HTTP {status}).")
    raise CoordinatorAway(
        sentence or f"{address} answered with HTTP {status} and no JSON; is it a coordinator?"
    )
