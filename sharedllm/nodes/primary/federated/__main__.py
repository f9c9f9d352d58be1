"""``python -m sharedllm.nodes.primary.federated MODEL NAME …``: can these specialists be served on that base?

It ends with 0, or with 1 and a sentence, and starts nothing: so a supervisor knows before it starts anything,
without keeping the memory that looking takes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.primary.federated.lineup import lineup

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Look, and say what is wrong."""
    try:
        lineup(arguments[0], arguments[1:])
    except SharedLLMError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
