"""Programs in processes of their own that begin with torch imported: forked from a server that did so once.

A fresh interpreter that imports the platform takes two seconds, most of a test's time. What is forked here is
a process like any other: it can be killed, holds its own locks, and shares nothing with the test's process.

*Not covered*: what an import itself does; such a test starts an interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Program"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["sharedllm.cli.model", "sharedllm.store.conversion", "sharedllm.training"])
_WAIT_S = 60.0


class Program:
    """``code`` as a program of its own, with ``arguments`` and this process's environment.

    A ``with`` waits for its end; it is killed if the body raises.
    """

    def __init__(self, code: str, *arguments: object) -> None:
        ends = [os.pipe() for _ in range(3)]
        theirs = [Connection(ends[0][0], writable=False)]
        theirs += [Connection(write, readable=False) for _, write in ends[1:]]
        told = [code, [str(argument) for argument in arguments], dict(os.environ), str(Path.cwd())]
        self._process = _CONTEXT.Process(target=_run, args=(*told, theirs), daemon=True)
        self._process.start()
        for end in theirs:
            end.close()
        self.stdin = os.fdopen(ends[0][1], "w", buffering=1)
        self.stdout, self.stderr = os.fdopen(ends[1][0]), os.fdopen(ends[2][0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
        self.wait()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process.pid is not None
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def wait(self) -> tuple[int, str, str]:
        """Close its input and wait for its end; its exit code, what it said, and what it complained of."""
        self.stdin.close()
        said = "" if self.stdout.closed else self.stdout.read()
        complained = "" if self.stderr.closed else self.stderr.read()
        self.stdout.close()
        self.stderr.close()
        self._process.join(_WAIT_S)
        code = self._process.exitcode
        assert code is not None, "the program goes on"
        return code, said, complained


def _run(
    code: str, arguments: list[str], environment: dict[str, str], folder: str, ends: list[Connection]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
