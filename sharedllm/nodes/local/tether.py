"""Becomes the program named by its arguments, which the kernel then ends when the parent dies.

Run by its path, as ``python -IS tether.py PARENT PROGRAM …``, so that no package is imported before the
program; a function run between fork and exec could deadlock on a lock that another thread held.

*Covered*: Linux, a parent that died before the tether was set. *Not covered*: other systems, where the
children of a killed supervisor live on; grandchildren, which must be tethered to their own parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, program: list[str]) -> None:
    """Tie this process to ``parent`` and become ``program``."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the supervisor is gone")
    os.execv(program[0], program)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
