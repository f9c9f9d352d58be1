"""Read a request's JSON without ever holding more of it than is allowed.

*Covered*: a body of any length (counted as it arrives), one that never ends, JSON that is too deep, NaN,
lone surrogates, numbers of a million digits, a million lists. *Not covered*: compressed
bodies; they are refused as not JSON.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pydantic_core
from fastapi import Request
from starlette.requests import ClientDisconnect

from sharedllm.nodes.api.errors import ClientGone, Refused

__all__ = ["MAX_BODY_BYTES", "read_json"]

MAX_BODY_BYTES = 2 << 20
MAX_BRACKETS = 50_000  # lists and objects cost a hundred times their bytes, and time that streams lack
_PATIENCE_S = 30.0


async def read_json(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request carries. Raises ``Refused`` (400, 408, 413, 415)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(
            f"The content type is {kind[:100]!r}; expected application/json. Set the Content-Type header.",
            status=415,
            code="unsupported_media_type",
        )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            data = await _read(request)
    except TimeoutError:
        raise Refused(
            f"The body did not arrive within {_PATIENCE_S:.0f} s; send the request again.",
            status=408,
            code="timeout",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise ClientGone("The client left while it sent its request.") from None
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise Refused(
            f"The body has more than {MAX_BRACKETS:,} opening brackets, which is the most that is read here; "
            "send less in one request.",
            status=413,
            code="request_too_large",
        )
    try:
        # its parser is bounded in depth (200), refuses half characters, and its errors say where
        parsed = pydantic_core.from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(
            f"The body is not JSON that can be read ({error}); expected one JSON object.", code="invalid_json"
        ) from None
    if not isinstance(parsed, dict):
        raise Refused("The body is JSON but not an object; expected {…}.", code="invalid_json")
    return parsed


async def _read(request: Request) -> bytes:
    data = bytearray()
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or len(announced) > 18 or int(announced) > MAX_BODY_BYTES:
        raise _too_long()
    async for chunk in request.stream():
        if len(data) + len(chunk) > MAX_BODY_BYTES:
            raise _too_long()
        data += chunk
    return bytes(data)


def _too_long() -> Refused:
    return Refused(
        f"The request is larger than {MAX_BODY_BYTES:,} bytes, which is the most that is read here; "
        "shorten the prompt.",
        status=413,
        code="request_too_large",
    )
