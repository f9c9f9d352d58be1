"""The audit of what a primary serves: a log that can't be rewritten, and receipts from it.

What must not happen here: a token that waits for the log, a request that is refused because of it, an answer
that is said to be audited and is not.

Bets that rest on it: b017 (what it costs).
"""

from sharedllm.nodes.primary.audit.auditor import Auditor
from sharedllm.nodes.primary.audit.tape import AuditHead, Tape

__all__ = ["AuditHead", "Auditor", "Tape"]
