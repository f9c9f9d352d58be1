"""Run a folder of benchmarks part by part: each part is a module with ``measure(quick=…) -> lines``."""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Sequence


def run(folder: str, parts: Sequence[str], about: str | None) -> None:
    """Measure the parts that the command line asks for and print their tables, with the machine's load."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"some of {', '.join(parts)}; all if none")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(parts):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; parts are {', '.join(parts)}")
    for part in given.parts or parts:
        module = importlib.import_module(f"{folder}.{part}")
        before, began_s = os.getloadavg()[0], time.monotonic()
        print(f"\n{part} …", flush=True)
        for line in module.measure(quick=given.quick):
            print(f"  {line}", flush=True)
        took_s = time.monotonic() - began_s
        print(f"  ({took_s:.0f} s; load {before:.1f} → {os.getloadavg()[0]:.1f})", flush=True)
