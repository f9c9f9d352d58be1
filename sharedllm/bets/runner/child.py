"""The process that executes one notebook with papermill, and tells its parent about it line by line.

The job comes as one JSON line on stdin; the end of stdin means that the parent is gone, and ends this process
with its kernel. Events go out as JSON lines on stdout; everything else, the kernel's own noise included, goes
to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
import psutil  # type: ignore[import-untyped,unused-ignore]
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError

from sharedllm.bets.runner.kernel import LIMIT_MIME
from sharedllm.bets.runner.recording import PROGRESS_MIME
from sharedllm.errors import WriteFailed
from sharedllm.store import atomic

_ENGINE = "sharedllm"
_TAIL_LINES = 12
_PATIENCE_S = 180  # a small machine at full load starts a kernel in a minute
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Teller:
    """Writes events for the parent; the notebook's thread and the life line may both call it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __call__(self, event: str, **more: Any) -> None:
        self.stream.write(json.dumps({"event": event, **more}) + "\n")
        self.stream.flush()


class OwnKernel(AsyncKernelManager):
    """Starts the kernel of this interpreter: no kernelspec of the machine is looked up or needed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "sharedllm.bets.runner.kernel", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


class Manager(NotebookExecutionManager):  # type: ignore[misc]
    """Keeps the notebook on disk after each cell, atomically, and tells where it is."""

    def __init__(self, nb: Any, output: Path, tell: Teller) -> None:
        super().__init__(nb, output_path=None, progress_bar=False, autosave_cell_every=0)
        self.output, self.tell = output, tell
        self.code = [index for index, cell in enumerate(nb.cells) if cell.cell_type == "code"]

    def save(self, **_: Any) -> None:
        self.nb.metadata.papermill["input_path"] = "bet.ipynb"
        text: str = nbformat.writes(self.nb)  # type: ignore[no-untyped-call]
        atomic.write_bytes(self.output, text.encode())

    def cell_start(self, cell: Any, cell_index: int | None = None, **more: Any) -> None:
        super().cell_start(cell, cell_index, **more)
        if cell_index in self.code:
            first = next((line for line in cell.source.splitlines() if line.strip()), "")
            self.tell("cell", cell=self.code.index(cell_index) + 1, of=len(self.code), line=first[:80])

    def cell_complete(self, cell: Any, cell_index: int | None = None, **more: Any) -> None:
        super().cell_complete(cell, cell_index, **more)
        if cell_index in self.code:
            self.tell("cell_done", wall_s=cell.metadata.papermill.get("duration") or 0.0)


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """Relays progress to the parent instead of keeping it, and ends the run at the output limit."""

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        data = msg["content"].get("data")
        if isinstance(data, dict) and PROGRESS_MIME in data:
            self.nb_man.tell("progress", line=str(data[PROGRESS_MIME].get("line"))[:200])
            return None
        output = super().process_message(msg, cell, cell_index)
        if isinstance(data, dict) and LIMIT_MIME in data:
            self.nb_man.tell("output_limit")
            _leave(self.nb_man)
        return output


class Engine(NBClientEngine):  # type: ignore[misc]
    """papermill's engine with our manager, client and kernel."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, **more: Any) -> Any:
        manager = Manager(nb, more["output"], more["tell"])
        signal.signal(signal.SIGTERM, lambda *_: _leave(manager))
        manager.notebook_start()
        try:
            client = Client(
                manager,
                kernel_name=kernel_name,
                kernel_manager_class=OwnKernel,
                timeout=None,  # the parent holds the limit of the whole run
                startup_timeout=_PATIENCE_S,
                iopub_timeout=_PATIENCE_S,
            )
            client.execute()
        finally:
            manager.notebook_complete()
        return manager.nb


def main() -> None:
    """Execute the job on stdin."""
    job = json.loads(sys.stdin.readline())
    tell = Teller(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("papermill").setLevel(logging.ERROR)
    papermill_engines.register(_ENGINE, Engine)
    notebook = nbformat.read(job["notebook"], as_version=4)  # type: ignore[no-untyped-call]
    try:
        papermill.execute_notebook(
            notebook,
            None,
            parameters=job["parameters"],
            engine_name=_ENGINE,
            kernel_name="python3",
            progress_bar=False,
            output=Path(job["output"]),
            tell=tell,
        )
    except PapermillExecutionError as error:
        lines = [line for text in error.traceback for line in _COLOURS.sub("", text).splitlines()]
        tell("crashed", error=f"{error.ename}: {error.evalue}"[:2000], tail=lines[-_TAIL_LINES:])
    except DeadKernelError:
        tell("dead")
    except WriteFailed as error:
        tell("write_failed", error=str(error))
    else:
        tell("finished", peak_rss_bytes=_peak_rss_bytes())


def _leave(manager: Manager) -> None:
    """End at once, with the notebook as far as it got; the parent ends the kernel."""
    manager.save()
    os._exit(1)


def _peak_rss_bytes() -> int:
    """Largest resident size of the kernel, which has ended by now."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


def _end_with_parent() -> None:
    sys.stdin.read()
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)


if __name__ == "__main__":
    main()
