"""The wire format's figures, part by part: ``python -m tests.benchmarks.wire [part …] [--quick]``.

Parts: packing (how fast trits are packed and unpacked, and how small they get), tables (what an embedding of
fewer bits saves and costs), bases (their loss on the same texts), pareto (bytes against loss, for every way
to get a small model), kernel (products with packed weights). The load of the machine is printed before and
after each: on a busy machine speeds say little, their ratios a little more.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

PARTS = ("packing", "tables", "bases", "pareto", "kernel")


def main() -> None:
    """Measure the parts that were asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"some of {', '.join(PARTS)}; all if none")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
    for part in given.parts or PARTS:
        module = importlib.import_module(f"tests.benchmarks.wire.{part}")
        before, began_s = os.getloadavg()[0], time.monotonic()
        print(f"\n{part} …", flush=True)
        for line in module.measure(quick=given.quick):
            print(f"  {line}", flush=True)
        took_s = time.monotonic() - began_s
        print(f"  ({took_s:.0f} s; load {before:.1f} → {os.getloadavg()[0]:.1f})", flush=True)


if __name__ == "__main__":
    main()
