"""What people's programs and browsers talk to: an OpenAI-compatible API and the page, over a ``Service``.

Nothing here knows a node, a socket to one, or a tensor: tokens come from the ``Service`` that the primary
hands in. Nothing a person sends is trusted: every length is checked before it is used, and what is not
supported is refused by its name, never ignored.

Bets that rest on it: none.
"""

from sharedllm.nodes.api.app import create_app
from sharedllm.nodes.api.listener import Server, make_server
from sharedllm.nodes.api.service import Ask, Said, Served, Service, Stream

__all__ = ["Ask", "Said", "Served", "Server", "Service", "Stream", "create_app", "make_server"]
