"""Stands in for a process of a federation: takes a token, says where it is, answers ``/readyz``."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any


class Answer(BaseHTTPRequestHandler):
    """Says that a token went through."""

    def do_GET(self) -> None:
        body = json.dumps({"ok": True, "sentence": "A token went through."}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def main(arguments: list[str]) -> None:
    """Write down how this node was started, and serve."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    state = Path(options["--state"])
    state.mkdir(parents=True, exist_ok=True)
    (state / "token").write_text(sys.stdin.readline())
    (state / "options").write_text(json.dumps(options))
    port = int(options.get("--rpc-port") or options["--port"])
    with HTTPServer(("127.0.0.1", port), Answer) as server:
        print(f"ready http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
