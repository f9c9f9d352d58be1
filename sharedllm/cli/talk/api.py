"""A primary's OpenAI API as a terminal needs it: streamed text, and refusals as sentences."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.identity.files import state_root
from sharedllm.nodes.local import PAGE_PORT, read_note
from sharedllm.nodes.operations import BadSetting

__all__ = ["Api", "ApiFailed", "connect", "own_key"]

_TIMEOUT = httpx.Timeout(300.0, connect=5.0)  # a long prompt is silent for a while
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NOBODY = (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL, httpx.UnsupportedProtocol)
_MAX_KEY_BYTES = 4096
_MAX_LINE = 1 << 20
_MAX_ANSWER = 1 << 26


class ApiFailed(SharedLLMError):
    """The API can't be reached, refuses, or breaks off."""


@dataclass(frozen=True)
class Api:
    """Where it is and which model is asked; ``key`` is never shown.

    ``client_key`` is the Ed25519 public key (64 hex digits) to which receipts are bound.
    """

    url: str
    model: str = ""
    key: str = field(default="", repr=False)
    client_key: str = ""

    def chat(self, messages: list[dict[str, str]], **more: Any) -> Generator[str, None, str]:
        """Yield the answer piece by piece, and return its receipt's id (``""``: it has none).

        Closing it ends the generation there. Raises ``ApiFailed``.
        """
        body = {"model": self.model, "messages": messages, "stream": True, **more}
        with contextlib.closing(self._events("/v1/chat/completions", body)) as events:
            receipt = ""
            for choice, ours in events:
                receipt = str(ours.get("receipt", receipt))
                yield _safe((choice.get("delta") or {}).get("content") or "")
            return receipt

    def complete(self, prompt: str, **more: Any) -> Generator[str, None, str]:
        """Yield the continuation as ``chat`` does the answer; raises ``ApiFailed``."""
        body = {"model": self.model, "prompt": prompt, "stream": True, **more}
        with contextlib.closing(self._events("/v1/completions", body)) as events:
            receipt = ""
            for choice, ours in events:
                receipt = str(ours.get("receipt", receipt))
                yield _safe(choice.get("text") or "")
            return receipt

    def receipt(self, identifier: str) -> bytes:
        """Return the receipt of an answer; raises ``ApiFailed``."""
        return self._got(f"/v1/sharedllm/receipts/{quote(identifier, safe='')}")

    def models(self) -> list[str]:
        """Return the names of the models it serves; raises ``ApiFailed``."""
        answer = self._got("/v1/models")
        try:
            return [str(model["id"]) for model in json.loads(answer)["data"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ApiFailed(f"{self.url} answers, but not as an OpenAI API; is --url right?") from None

    def _got(self, path: str) -> bytes:
        try:
            with self._client() as client, client.stream("GET", self.url + path) as answer:
                body = _bounded(answer)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._away(error) from None
        if answer.is_error:
            raise ApiFailed(_sentence(answer, body))
        return body

    def _events(
        self, path: str, body: Mapping[str, Any]
    ) -> Generator[tuple[dict[str, Any], dict[str, Any]], None, None]:
        """Yield the first choice of every event of a stream, and what a primary says beside it."""
        try:
            with self._client() as client, client.stream("POST", self.url + path, json=body) as answer:
                if answer.is_error:
                    raise ApiFailed(_sentence(answer, _bounded(answer)))
                for line in answer.iter_lines():
                    if line == "data: [DONE]":
                        return
                    if line.startswith("data: "):
                        yield from _choices(line[6:_MAX_LINE])
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._away(error) from None
        raise ApiFailed("The stream ended before the answer did; ask again.")

    def _client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        if self.client_key:
            headers["x-sharedllm-client-key"] = self.client_key
        # a proxy named by the environment is for elsewhere, and may not reach this machine
        elsewhere = httpx.URL(self.url).host not in ("127.0.0.1", "localhost", "::1")
        return httpx.Client(headers=headers, timeout=_TIMEOUT, trust_env=elsewhere)

    def _away(self, error: Exception) -> ApiFailed:
        if isinstance(error, _NOBODY):
            return ApiFailed(
                f"Nothing answers at {self.url}. Start it with `sharedllm up`, or give another --url."
            )
        return ApiFailed(f"The connection to {self.url} broke ({type(error).__name__}); ask again.")


def own_key() -> NodeKey:
    """This user's own key, to which receipts are bound; made when it is first needed."""
    return NodeKey.load_or_create(state_root() / "client" / "client.key")


def connect(url: str | None, model: str | None, key_file: Path | None) -> Api:
    """Return the API at ``url`` (None: this machine's), asking for ``model`` or the first that it serves.

    Raises ``ApiFailed``.
    """
    if url is None:
        url = str(read_note(state_root() / "up").get("page", f"http://127.0.0.1:{PAGE_PORT}"))
    api = Api(url.rstrip("/").removesuffix("/v1"), model or "", _key(key_file))
    if model:
        return api
    served = api.models()
    if not served:
        raise ApiFailed(f"{api.url} serves no model yet; look at `sharedllm status`.")
    return Api(api.url, served[0], api.key)


def _key(file: Path | None) -> str:
    key = os.environ.get("SHAREDLLM_API_KEY", "")
    if file is not None:
        try:
            with file.open("rb") as opened:
                key = opened.read(_MAX_KEY_BYTES).decode()
        except (OSError, UnicodeDecodeError):
            raise BadSetting(
                f"The key file {file} can't be read; give another with --api-key-file."
            ) from None
    if not key.strip().isascii() or not key.strip().isprintable():
        raise BadSetting("The API's key must be one line of ASCII characters.")
    return key.strip()


def _choices(data: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    try:
        event = json.loads(data)
        if isinstance(event, dict) and (error := event.get("error")):
            raise ApiFailed(_safe(str(error.get("message") if isinstance(error, dict) else error)))
        ours = event.get("sharedllm")
        yield from ((choice, ours if isinstance(ours, dict) else {}) for choice in event["choices"][:1])
    except (ValueError, KeyError, TypeError):
        raise ApiFailed("The answer is not an OpenAI stream; is --url right?") from None


def _bounded(answer: httpx.Response) -> bytes:
    """Read an answer of at most ``_MAX_ANSWER``: the largest receipt."""
    body = bytearray()
    for part in answer.iter_bytes():
        body += part
        if len(body) > _MAX_ANSWER:
            raise ApiFailed(f"{answer.url} answers without an end; is --url right?")
    return bytes(body)


def _sentence(answer: httpx.Response, body: bytes) -> str:
    """Return the API's own words for a refusal, and when to come back."""
    try:
        said = _safe(str(json.loads(body)["error"]["message"]))[:2000]
    except (ValueError, KeyError, TypeError, RecursionError):
        said = f"The API answered with status {answer.status_code} and no sentence; is --url right?"
    wait = answer.headers.get("retry-after", "")
    return f"{said} Try again in {wait} s." if wait.isdigit() else said


def _safe(text: str) -> str:
    """Take out what would move a terminal's cursor or change its colours: a model may say anything."""
    return _CONTROL.sub("", text)
