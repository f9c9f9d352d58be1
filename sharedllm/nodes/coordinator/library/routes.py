"""The library's routes: manifests in one piece, blobs in ranges, both ways.

A blob is read with ``Range`` (206), so that a fetch goes on where it was cut, and written with
``Content-Range``, so that a publication does. *Covered*: a length that is missing, another than announced, or
beyond the quota is refused before a byte is read; a sender that stalls; more uploads at once than threads can
be spared. *Not covered*: a reader that asks for one range after the other for ever.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from threading import BoundedSemaphore
from typing import Any

from anyio import from_thread
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from sharedllm.nodes.coordinator.library.shelf import NotOnShelf, Shelf, ShelfRefused
from sharedllm.nodes.errors import Busy
from sharedllm.store.blobs import BlobBusy
from sharedllm.store.specialists import Signed, Withdrawal

__all__ = ["UPLOADS", "library_routes"]

UPLOADS = "/v1/blobs/"  # what is PUT below it is streamed, and bounded by what was announced
_UPLOADS_AT_ONCE = 8
_PATIENCE_S = 30.0
_RETRY_S = 5.0
_HASH = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


def library_routes(app: FastAPI, shelf: Shelf, member: Any) -> None:
    """Add the routes; ``member`` is the dependency that admits the federation's nodes."""
    _refusals(app)
    _manifest_routes(app, shelf, member)
    _blob_routes(app, shelf, member)


def _manifest_routes(app: FastAPI, shelf: Shelf, member: Any) -> None:
    """What is published, and what is taken back."""

    @app.get("/v1/specialists", dependencies=[member])
    def listing() -> dict[str, Any]:
        return {"specialists": shelf.listing()}

    @app.get("/v1/specialists/{name}", dependencies=[member])
    def manifest(name: str) -> Response:
        return Response(shelf.find(name).to_bytes(), media_type="application/json")

    @app.put("/v1/specialists/{id}", dependencies=[member])
    def announce(id: str, request: Request) -> dict[str, Any]:
        signed = Signed.from_bytes(from_thread.run(request.body), "What was published")
        if signed.id != id:
            raise ShelfRefused(f"The manifest has the id {signed.id[:12]}…, not {id[:12]}…, as was said.")
        return {"id": id, "missing": shelf.announce(signed)}

    @app.put("/v1/withdrawals/{id}", dependencies=[member])
    def withdraw(id: str, request: Request) -> dict[str, Any]:
        statement = Withdrawal.from_bytes(from_thread.run(request.body), "The withdrawal")
        if statement.id != id:
            raise ShelfRefused(f"The withdrawal is of {statement.id[:12]}…, not of {id[:12]}…, as was said.")
        shelf.withdraw(statement)
        return {"id": id}

    @app.get("/v1/models/{weights}", dependencies=[member])
    def model(weights: str) -> Response:
        return Response(shelf.with_weights(weights).to_bytes(), media_type="application/json")


def _blob_routes(app: FastAPI, shelf: Shelf, member: Any) -> None:
    """The bytes, both ways."""
    room = BoundedSemaphore(_UPLOADS_AT_ONCE)

    @app.get(UPLOADS + "{sha256}", dependencies=[member])
    def blob(sha256: str) -> FileResponse:
        return FileResponse(shelf.blob(sha256), media_type="application/octet-stream")

    @app.put(UPLOADS + "{sha256}", dependencies=[member])
    def receive(sha256: str, request: Request) -> dict[str, Any]:
        start, size = _announced(sha256, request)
        if not room.acquire(blocking=False):
            raise Busy("As many blobs as can be received at once are coming; try again.", _RETRY_S)
        try:
            shelf.promise(sha256, size)
            try:
                arrived = _receive(shelf, sha256, start, size, request)
            finally:
                shelf.settle(sha256)
        except BlobBusy as error:
            raise Busy(str(error), _RETRY_S) from None
        finally:
            room.release()
        return {"arrived": arrived}


def _receive(shelf: Shelf, sha256: str, start: int, size: int, request: Request) -> int:
    """Write the body where the blob ends so far; runs in a thread of the pool."""
    with shelf.blobs.arriving(sha256, size, wait=False) as arriving:
        if start != arriving.offset:
            raise ShelfRefused(f"{arriving.offset} bytes of this blob are here, and yours begin at {start}.")
        body = request.stream()
        while chunk := from_thread.run(_next, body):
            arriving.write(chunk)
    return arriving.offset


async def _next(body: AsyncIterator[bytes]) -> bytes:
    async with asyncio.timeout(_PATIENCE_S):
        return await anext(body, b"")


def _announced(sha256: str, request: Request) -> tuple[int, int]:
    """Read from the headers where a body begins in its blob, and the blob's size."""
    length = request.headers.get("content-length", "")
    if _HASH.fullmatch(sha256) is None or not length.isdigit() or len(length) > 15:
        raise ShelfRefused("A blob is named by its SHA-256, and Content-Length says how much of it comes.")
    given = request.headers.get("content-range")
    if given is None:
        return 0, int(length)
    found = _RANGE.fullmatch(given)
    start, last, size = (int(number) for number in found.groups()) if found else (0, 0, 0)
    if found is None or last + 1 - start != int(length) or last >= size:
        raise ShelfRefused(f"The range {given[:60]!r} does not fit {length} bytes; send it anew.")
    return start, size


def _refusals(app: FastAPI) -> None:
    @app.exception_handler(NotOnShelf)
    def not_here(request: Request, error: NotOnShelf) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=404)

    @app.exception_handler(TimeoutError)
    def stalled(request: Request, error: TimeoutError) -> JSONResponse:
        said = f"Nothing came for {_PATIENCE_S:.0f} s; what arrived is kept, go on from there."
        return JSONResponse({"error": said}, status_code=408, headers={"Connection": "close"})

    @app.exception_handler(ShelfRefused)
    def refused(request: Request, error: ShelfRefused) -> JSONResponse:
        # whoever is refused in mid-body has to stop sending
        return JSONResponse({"error": str(error)}, status_code=400, headers={"Connection": "close"})
