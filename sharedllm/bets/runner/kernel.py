"""The kernel of a run: ipykernel under this very interpreter, whose output ends where the limit is.

The cap sits at the one place through which every output leaves the kernel, so that a notebook that prints
without end fills neither its own memory nor its reader's. What comes after the limit is dropped; a marker
goes out once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

__all__ = ["LIMIT_MIME", "OUTPUT_LIMIT"]

LIMIT_MIME = "application/vnd.sharedllm.output-limit+json"
OUTPUT_LIMIT = "SHAREDLLM_OUTPUT_LIMIT_BYTES"

_OUTPUTS = ("stream", "display_data", "update_display_data", "execute_result", "error")


def main() -> None:
    """Start the kernel for the connection file on the command line."""
    from ipykernel.kernelapp import IPKernelApp
    from jupyter_client.session import Session

    Session.send = capped(Session.send, int(os.environ[OUTPUT_LIMIT]))  # type: ignore[method-assign]
    IPKernelApp.launch_instance()


def capped(send: Callable[..., Any], limit_bytes: int) -> Callable[..., Any]:
    """Wrap ``Session.send``: once outputs exceed ``limit_bytes`` in all, one marker is sent, then none."""
    sent_bytes = 0

    def capped_send(
        session: Any, stream: Any, message: Any, content: Any = None, *rest: Any, **more: Any
    ) -> Any:
        nonlocal sent_bytes
        whole = isinstance(message, dict)
        kind = message["msg_type"] if whole else message
        if kind not in _OUTPUTS:
            return send(session, stream, message, content, *rest, **more)
        before, sent_bytes = sent_bytes, sent_bytes + _size(message["content"] if whole else content)
        if sent_bytes <= limit_bytes:
            return send(session, stream, message, content, *rest, **more)
        if before > limit_bytes:
            return None
        sentence = f"[more than {limit_bytes:,} bytes of output; the run is stopped]"
        marker = {"data": {LIMIT_MIME: {}, "text/plain": sentence}, "metadata": {}, "transient": {}}
        if whole:
            more["parent"] = message["parent_header"]
        return send(session, stream, "display_data", marker, *rest, **more)

    return capped_send


def _size(content: Any) -> int:
    if isinstance(content, str | bytes):
        return len(content)
    if isinstance(content, dict):
        return sum(_size(key) + _size(value) for key, value in content.items())
    if isinstance(content, list | tuple):
        return sum(_size(item) for item in content)
    return 8


if __name__ == "__main__":
    main()
