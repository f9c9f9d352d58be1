"""The page that a primary serves: a chat, the ring of the pipeline, and what lies behind a token.

``FOLDER`` holds ``index.html`` (served at ``/``) and everything that it names (served under ``/web/``): plain
ES modules, with no build step. Nothing in it may ask another address, run a string as code or markup
(``innerHTML``, ``eval``, inline scripts or styles: the page works under ``default-src 'none'`` with
``script-src``, ``style-src``, ``img-src`` and ``connect-src`` ``'self'``), or tell anything by colour alone.

*Covered*: replies, node names and sentences are put in as text, never as markup; the API key stays in the
tab's session storage. *Not covered*: what a browser extension reads.

Bets that rest on it: none.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDER"]

FOLDER = Path(__file__).parent
