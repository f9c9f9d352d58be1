"""The wire format's figures, part by part: ``python -m tests.benchmarks.wire [part …] [--quick]``.

Parts: packing (how fast trits are packed and unpacked, and how small they get), tables (what an embedding of
fewer bits saves and costs), bases (their loss on the same texts), pareto (bytes against loss, for every way
to get a small model), kernel (products with packed weights). The load of the machine is printed before and
after each: on a busy machine speeds say little, their ratios a little more.
"""

from __future__ import annotations

from tests.benchmarks.parts import run

run("tests.benchmarks.wire", ("packing", "tables", "bases", "pareto", "kernel"), __doc__)
