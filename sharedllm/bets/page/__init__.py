"""A bet's page and the status page, as Markdown with the tables and figures in place.

The order of a page is the order of events: claim, criteria, controls, and only then what came out. *Covered*:
text from a ``bet.toml`` cannot become markup. *Not covered*: whether that text is true.
"""

from __future__ import annotations

from sharedllm.bets.page.bet import bet_page
from sharedllm.bets.page.status import status_page

__all__ = ["bet_page", "status_page"]
