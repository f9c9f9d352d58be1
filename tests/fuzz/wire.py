"""Fuzz everything that reads bytes from others: ``python -m tests.fuzz.wire --seconds 600``.

Atheris mutates inputs and follows the coverage of our own code. An exception that the protocol does not
state, an input that takes longer than ``_DEADLINE_S``, or memory beyond ``_MEMORY_BYTES`` ends the run with a
traceback and the input in ``build/fuzz``; a run without findings ends with figures.
"""

from __future__ import annotations

import argparse
import faulthandler
import resource
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sharedllm"]):
    from tests.fuzz.sessions import Target
    from tests.fuzz.targets import feed, seeds

_FINDINGS = Path(__file__).parents[2] / "build" / "fuzz"
_DEADLINE_S = 30
_MEMORY_BYTES = 1 << 30  # beyond what the process has when it starts; one frame may take 64 MiB


def limit_memory() -> None:
    """Let the process have ``_MEMORY_BYTES`` more than it has, and not a byte beyond."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Fuzz for as long as is asked."""
    parser = argparse.ArgumentParser(description="Fuzz the wire format and an engine's sessions.")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    target = Target()
    faulthandler.enable()
    limit_memory()

    def one(data: bytes) -> None:
        faulthandler.dump_traceback_later(_DEADLINE_S, exit=True)
        feed(target, data)
        faulthandler.cancel_dump_traceback_later()

    with tempfile.TemporaryDirectory(prefix="corpus-") as corpus:
        for number, seed in enumerate(seeds()):
            (Path(corpus) / f"{number:02}").write_bytes(seed)
        options = [f"-max_total_time={given.seconds}", f"-seed={given.seed}", "-max_len=4096"]
        options += ["-print_final_stats=1", f"-timeout={_DEADLINE_S}", "-rss_limit_mb=0"]
        _FINDINGS.mkdir(parents=True, exist_ok=True)
        options.append(f"-artifact_prefix={_FINDINGS}/")
        atheris.Setup([sys.argv[0], *options, corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
