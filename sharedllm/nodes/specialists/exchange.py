"""Between this machine's store and the federation's library: publish, list, fetch, by name or by hash.

*Covered*: a connection that is cut at any byte (goes on from there, some time later too), a library that
serves other bytes than the hash says (nothing is kept), a manifest that is not the one that was asked for, a
specialist of the same name from somebody else. *Not covered*: a library without some blobs of a manifest: a
known base is fetched by its name instead.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.errors import BadManifest, BadModelFile, SharedLLMError, UnknownName
from sharedllm.nodes.coordinator.client import CoordinatorClient, PipelineGone, RequestRefused
from sharedllm.nodes.errors import Busy, CoordinatorAway
from sharedllm.store import Blobs, Progress, atomic, home, specialists
from sharedllm.store.blobs import Arriving
from sharedllm.store.manifest import CEILING_BYTES, Manifest
from sharedllm.store.specialists import Signed

__all__ = ["fetch", "fetch_model", "listing", "offer", "withdraw"]

_CHUNK_BYTES = 1 << 18
_LISTING_BYTES = 4 << 20
_TRIES = 5  # in a row that bring not one byte
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0


def listing(client: CoordinatorClient) -> list[dict[str, Any]]:
    """What the library has: ``name``, ``id``, ``signer``, ``adapter``, ``bytes``, ``missing`` blobs.

    Raises what ``CoordinatorClient`` raises, here and below.
    """
    listed: list[dict[str, Any]] = _said(
        client, _small(client, "/v1/specialists", _LISTING_BYTES), "specialists"
    )
    return listed


def fetch(
    client: CoordinatorClient,
    name_or_id: str,
    *,
    signers: Collection[str] | None = None,
    known_as: str | None = None,
    progress: Progress | None = None,
) -> Signed:
    """Bring a specialist into this machine's store, and make ``specialists.find(known_as or name)`` find it.

    Blobs that the library lacks must be here already. Raises ``UnknownName``, ``BadManifest`` for one that is
    forged, signed by none of ``signers``, or would take the place of another's; ``BadModelFile`` for a wrong
    byte or a base that is nowhere; ``WriteFailed``.
    """
    signed = _manifest(client, f"/v1/specialists/{name_or_id}", f"Specialist {name_or_id}", signers)
    if name_or_id not in (signed.id, signed.name):
        raise BadManifest(f"The library answered {signed.name} when {name_or_id} was asked for; ask again.")
    name = known_as or signed.name
    with contextlib.suppress(UnknownName):
        before = specialists.find(name)
        if before.signer != signed.signer:
            raise BadManifest(
                f"This machine has a specialist {name} of {before.signer[:16]}…, and this one is signed by "
                f"{signed.signer[:16]}…; give it another name with --as."
            )
    _bring(client, signed, signed.blobs, progress)
    specialists.publish(name, signed)
    return signed


def fetch_model(client: CoordinatorClient, weights_sha256: str) -> Manifest:
    """Bring the model with these weights into the store, so that ``store.with_weights`` finds it.

    Raises ``UnknownName`` if nobody published it, and what ``fetch`` raises.
    """
    where = f"The model with weights {weights_sha256[:12]}…"
    signed = _manifest(client, f"/v1/models/{weights_sha256}", where, None)
    body = signed.body
    if body.weights_sha256 != weights_sha256:
        raise BadManifest(f"{where} was asked for, and the library answered with another; ask again.")
    needed = {body.weights_sha256: body.sizes["weights"], body.tokenizer_sha256: body.sizes["tokenizer"]}
    _bring(client, signed, needed, None)
    model = Manifest.from_dict(
        {key: value for key, value in body.to_dict().items() if key != "adapter"}, signed.name
    )
    atomic.write_bytes(home() / "converted" / f"{model.sha256}.json", model.to_bytes())
    return model


def offer(
    client: CoordinatorClient,
    signed: Signed,
    *,
    leave_out: Collection[str] = (),
    progress: Progress | None = None,
) -> None:
    """Publish a specialist in the library, with those of its blobs that the library lacks.

    ``leave_out`` are blobs that everybody gets elsewhere, such as a known base's. Raises ``BadModelFile`` for
    a blob that is missing or damaged here.
    """
    missing = _announce(client, signed)
    for sha256, size in signed.blobs.items():
        if sha256 in missing and sha256 not in leave_out:
            Blobs().verify(sha256)
            here = functools.partial(_arrived, client, signed, sha256)
            _persist(functools.partial(_upload, client, signed, sha256, here, progress), here, size)


def withdraw(client: CoordinatorClient, name_or_id: str, private: Ed25519PrivateKey) -> list[str]:
    """Take a specialist back from the library: that id, or every version of that name; return the ids.

    Copies that others fetched stay with them. Raises ``UnknownName`` where there is none, ``BadManifest`` for
    one that another key signed.
    """
    ids: list[str] = []
    while True:
        try:
            signed = _manifest(client, f"/v1/specialists/{name_or_id}", f"Specialist {name_or_id}", None)
        except UnknownName:
            if ids:
                return ids
            raise
        _put(client, f"/v1/withdrawals/{signed.id}", specialists.withdraw(signed, private).to_bytes())
        ids.append(signed.id)


def _announce(client: CoordinatorClient, signed: Signed) -> dict[str, int]:
    """Publish the manifest; return the blobs that the library lacks, and how much it has of each."""
    answer = _put(client, f"/v1/specialists/{signed.id}", signed.to_bytes())
    missing: dict[str, int] = _said(client, answer, "missing")
    return missing


def _put(client: CoordinatorClient, path: str, data: bytes) -> bytes:
    headers = {
        "Accept-Encoding": "identity",
        "Content-Length": str(len(data)),
        "Content-Type": "application/json",
    }
    with client.streaming("PUT", path, headers=headers, content=[data]) as response:
        return _bounded(client, response, CEILING_BYTES)


def _arrived(client: CoordinatorClient, signed: Signed, sha256: str) -> int:
    return _announce(client, signed).get(sha256, signed.blobs[sha256])


def _upload(
    client: CoordinatorClient,
    signed: Signed,
    sha256: str,
    here: Callable[[], int],
    progress: Progress | None,
) -> None:
    """Send what the library lacks of one blob over one connection."""
    start, size = here(), signed.blobs[sha256]
    headers = {
        "Accept-Encoding": "identity",
        "Content-Length": str(size - start),
        "Content-Range": f"bytes {start}-{size - 1}/{size}",
        "Content-Type": "application/octet-stream",
    }
    content = _told(_read(sha256, start), f"Publishing {signed.name}", start, size, progress)
    with client.streaming("PUT", f"/v1/blobs/{sha256}", headers=headers, content=content) as response:
        _bounded(client, response, CEILING_BYTES)


def _read(sha256: str, start: int) -> Iterator[bytes]:
    with Blobs().hold(sha256).open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _told(
    chunks: Iterator[bytes], what: str, done: int, total: int, progress: Progress | None
) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if progress is not None:
            progress(what, done, total)


def _bring(
    client: CoordinatorClient, signed: Signed, needed: dict[str, int], progress: Progress | None
) -> None:
    blobs = Blobs()
    for sha256, size in needed.items():
        if blobs.has(sha256) and blobs.path(sha256).stat().st_size == size:
            continue
        try:
            with blobs.arriving(sha256, size) as arriving:
                step = functools.partial(_download, client, signed.name, arriving, progress)
                _persist(step, lambda arriving=arriving: arriving.offset, size)  # type: ignore[misc]
        except PipelineGone as error:
            base = signed.body.provenance.get("base")
            known = base.get("name") if isinstance(base, dict) else None
            hint = f"run `sharedllm model fetch {known}` first" if known else "ask its publisher for it"
            raise BadModelFile(
                f"{signed.name} needs blob {sha256[:12]}… of {size:,} bytes, which is neither here nor in "
                f"the library; {hint}."
            ) from error


def _download(client: CoordinatorClient, name: str, arriving: Arriving, progress: Progress | None) -> None:
    """Get what can be got of a blob over one connection."""
    start, size = arriving.offset, arriving.size
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    with client.streaming("GET", f"/v1/blobs/{arriving.sha256}", headers=headers) as response:
        stated = response.headers.get("Content-Range", "")
        if response.status_code != 206 or not stated.startswith(f"bytes {start}-"):
            raise RequestRefused(
                f"The library answered a request for a part of a blob with HTTP {response.status_code}; "
                "compare both programs' versions."
            )
        for chunk in _told(response.iter_raw(_CHUNK_BYTES), f"Fetching {name}", start, size, progress):
            arriving.write(chunk)


def _persist(step: Callable[[], None], here: Callable[[], int], size: int) -> None:
    """Do ``step`` until ``size`` bytes are ``here``; give up when it brings not one, time after time."""
    failed, wait_s = 0, _FIRST_WAIT_S
    while (before := here()) < size:
        problem: SharedLLMError = CoordinatorAway("The library ends its answers before the blob does.")
        try:
            step()
        except (CoordinatorAway, Busy) as error:
            problem = error
        if here() > before:
            failed, wait_s = 0, _FIRST_WAIT_S
            continue
        failed += 1
        if failed == _TRIES:
            raise problem
        time.sleep(wait_s * random.uniform(0.5, 1.0))
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _manifest(client: CoordinatorClient, path: str, where: str, signers: Collection[str] | None) -> Signed:
    try:
        return Signed.from_bytes(_small(client, path, CEILING_BYTES), where, signers)
    except PipelineGone as error:
        raise UnknownName(str(error)) from None


def _small(client: CoordinatorClient, path: str, ceiling_bytes: int) -> bytes:
    with client.streaming("GET", path, headers={"Accept-Encoding": "identity"}) as response:
        return _bounded(client, response, ceiling_bytes)


def _bounded(client: CoordinatorClient, response: httpx.Response, ceiling_bytes: int) -> bytes:
    """Read an answer of at most so many bytes."""
    answer = bytearray()
    for part in response.iter_raw():
        answer += part
        if len(answer) > ceiling_bytes:
            raise RequestRefused(f"The library at {client.url} answers {response.url.path} without an end.")
    return bytes(answer)


def _said(client: CoordinatorClient, answer: bytes, key: str) -> Any:
    try:
        return json.loads(answer)[key]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RequestRefused(
            f"What answers at {client.url} is no library: it does not say {key}; compare both programs' "
            "versions."
        ) from None
