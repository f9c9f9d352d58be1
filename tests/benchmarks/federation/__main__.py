"""The federation's figures, part by part: ``python -m tests.benchmarks.federation [part …] [--quick]``.

Parts: bank (many users in one batch), audit (what a log costs), fit (a personal adapter), combiner (weights
of specialists). The load of the machine is printed before and after each, since most of these are ratios of
times: on a busy machine they say little.
"""

from __future__ import annotations

from tests.benchmarks.parts import run

run("tests.benchmarks.federation", ("bank", "audit", "fit", "combiner"), __doc__)
