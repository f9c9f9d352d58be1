"""Takes secrets out of text before anything prints it: join tokens, tickets, private keys, bearer keys.

*Covered*: a secret anywhere in a message, its arguments, a traceback or an extra field, whole or cut off at
its end. *Not covered*: a secret without its form (the bare secret part of a join token, a key's raw bytes),
and one that is split over two records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["REDACTED", "redact", "redact_value"]

REDACTED = "[redacted]"

_SECRETS = (
    # a private key in PEM, to its end or to the end of the text
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*PRIVATE KEY-----|.*\Z)", re.DOTALL),
    re.compile(r"SL1-[A-Za-z0-9_\-]+"),
    # JSON web tokens: every header starts with {" and so with ey in base64url
    re.compile(r"ey[A-Za-z0-9_\-]{6,}(?:\.[A-Za-z0-9_\-]*){1,2}"),
    re.compile(r"(?<=bearer)(?:[\s:=]|\\+[tnrfv])+['\"]?[A-Za-z0-9\-._~+/=]+", re.IGNORECASE),
)
_SECRET_FIELDS = re.compile(r"secret|password|authorization|api_?key|private_?key|join_?token|ticket", re.I)


def redact(text: str) -> str:
    """Return ``text`` with each secret replaced by ``[redacted]``."""
    for secret in _SECRETS:
        text = secret.sub(lambda found: (" " if found[0][0] in " \t\n\r:=" else "") + REDACTED, text)
    return text


def redact_value(name: str, value: Any) -> Any:
    """Redact a field of a record: a string by its form or its field's name, containers all through."""
    match value:
        case str():
            return REDACTED if _SECRET_FIELDS.search(name) else redact(value)
        case bytes() | bytearray():
            return redact_value(name, bytes(value).decode("utf-8", "replace"))
        case Mapping():
            return {redact(str(key)): redact_value(str(key), item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [redact_value(name, item) for item in value]
        case None | bool() | int() | float():
            return value
        case _:
            return redact_value(name, str(value))
