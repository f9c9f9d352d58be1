"""What the robust rules bear and cost: ``python -m tests.benchmarks.robust [part …] [--quick]``.

Parts: rules (error under the worst attack, and time, beside ``byzfl``), memory (64 workers × 38 million
numbers). The load of the machine is printed before and after each.
"""

from __future__ import annotations

from tests.benchmarks.parts import run

run("tests.benchmarks.robust", ("rules", "memory"), __doc__)
