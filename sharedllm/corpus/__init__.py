"""Text: real authors and registers, out of packages that anyone can fetch, split by book.

What must not happen here: executing, installing or extracting anything of a package; cutting a split through
a book; committing text; tokenising or training. Held-out documents never reach `base_mix`.

Bets that rest on this room: every bet with a model (b004, b018, b037 and what follows), through `domain` and
`user`.
"""

from __future__ import annotations

from sharedllm.corpus.document import SPLITS, Book, Document, Domain, Split, User
from sharedllm.corpus.domains import BASE_DOMAINS, base_mix, domain, domains
from sharedllm.corpus.excerpts import Excerpt, excerpts, sampled
from sharedllm.corpus.sources import Source, fetch, source, sources
from sharedllm.corpus.users import ALWAYS, needs, user, users

__all__ = [
    "ALWAYS",
    "BASE_DOMAINS",
    "SPLITS",
    "Book",
    "Document",
    "Domain",
    "Excerpt",
    "Source",
    "Split",
    "User",
    "base_mix",
    "domain",
    "domains",
    "excerpts",
    "fetch",
    "needs",
    "sampled",
    "source",
    "sources",
    "user",
    "users",
]
