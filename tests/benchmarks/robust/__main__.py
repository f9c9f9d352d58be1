"""What the robust rules bear and cost: ``python -m tests.benchmarks.robust [part …] [--quick]``.

Parts: rules (error under the worst attack, and time, beside ``byzfl``), memory (64 workers × 38 million
numbers). The load of the machine is printed before and after each.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

PARTS = ("rules", "memory")


def main() -> None:
    """Measure the parts that were asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"some of {', '.join(PARTS)}; all if none")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
    for part in given.parts or PARTS:
        module = importlib.import_module(f"tests.benchmarks.robust.{part}")
        before, began_s = os.getloadavg()[0], time.monotonic()
        print(f"\n{part} …", flush=True)
        for line in module.measure(quick=given.quick):
            print(f"  {line}", flush=True)
        took_s = time.monotonic() - began_s
        print(f"  ({took_s:.0f} s; load {before:.1f} → {os.getloadavg()[0]:.1f})", flush=True)


if __name__ == "__main__":
    main()
