"""Every refusal in the shape that OpenAI's clients read: a status, a sentence, a type, a parameter, a code.

*Covered*: what is a defect of ours says so and names the request's id, never a traceback. *Not covered*: the
sentences of the service itself; they are its own.
"""

from __future__ import annotations

import json
import logging
import math
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from sharedllm.errors import BadAdapter, BadPrompt, SharedLLMError, UnknownName
from sharedllm.nodes.errors import Busy, NoPipeline
from sharedllm.nodes.operations.logs import request_id

__all__ = ["ClientGone", "Refused", "handle", "refusal", "shown", "wrong"]

_log = logging.getLogger("sharedllm.api")


class ClientGone(SharedLLMError):
    """The client closed its connection, or reads nothing any more: nobody is left to answer."""


class Refused(SharedLLMError):
    """A request that is not served, as its client will read it.

    ``param`` names what is wrong, ``code`` is for programs, ``kind`` is OpenAI's ``type``.
    """

    def __init__(
        self,
        sentence: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status, self.param, self.code, self.kind = status, param, code, kind
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON that OpenAI's API would answer."""
        return {
            "error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code},
        }

    def response(self) -> Response:
        return JSONResponse(self.body(), self.status, self.headers)


def shown(value: Any) -> str:
    """A value as JSON, cut to what fits in a sentence."""
    if isinstance(value, dict | list) and len(value) > 20:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    text = json.dumps(value[:100] if isinstance(value, str) else value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:80] + "…"


def wrong(param: str, value: Any, expected: str) -> Refused:
    """A refusal of one value."""
    sentence = f"{param} is {shown(value)}; expected {expected}. Correct the request."
    return Refused(sentence, param=param, code="invalid_value")


def refusal(error: Exception) -> Refused:
    """Say any error as a client should read it; what is our own defect is logged with its traceback."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Busy):
        wait = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
        return Refused(str(error), status=429, code="busy", kind="rate_limit_error", headers=wait)
    if isinstance(error, NoPipeline):
        return Refused(str(error), status=503, code="no_pipeline", kind="service_unavailable")
    if isinstance(error, BadPrompt | BadAdapter | UnknownName):
        return Refused(str(error))
    if isinstance(error, HTTPException):
        return Refused(
            str(error.detail), status=error.status_code, code="http", headers=dict(error.headers or {})
        )
    if isinstance(error, SharedLLMError):
        return Refused(str(error), status=503, code="pipeline_failed", kind="service_unavailable")
    _log.error("A request failed.", exc_info=error)
    return Refused(
        f"This server has a defect and could not answer. Its log says more about request {request_id.get()}.",
        status=500,
        code="internal_error",
        kind="server_error",
    )


async def handle(request: Request, error: Exception) -> Response:
    """Answer with a refusal; a path or method that does not exist gets a sentence of its own."""
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        error = Refused(
            f"{request.method} {request.url.path} does not exist here; this server answers "
            "POST /v1/chat/completions, POST /v1/completions, GET /v1/models and GET "
            "/v1/sharedllm/receipts/{id}.",
            status=error.status_code,
            code="not_found" if error.status_code == 404 else "method_not_allowed",
            headers=dict(error.headers or {}),
        )
    return refusal(error).response()
