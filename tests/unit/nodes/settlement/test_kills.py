"""A journal on a real disk, in a process that is killed or runs out of space."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sharedllm.nodes.settlement import Account, Journal
from sharedllm.nodes.settlement.trials.parties import party

# gives, takes and settles without end; says how far it came only once that is on disk
GIVING = """
import sys
from pathlib import Path
from sharedllm.nodes.settlement import Account, Journal
from sharedllm.nodes.settlement.trials.parties import party
folder = Path(sys.argv[1])
server, client = (Account(party(0, n), Journal(folder / f"{n}.db")) for n in range(2))
while True:
    size = 1000 + (server.given[client.id].number if client.id in server.given else 0)
    server.give(client.id, size, "00" * 32)
    for claim in server.waiting(client.id):
        server.confirm(client.take(claim, claim.size_bytes))
    print(server.given[client.id].settled_number, flush=True)
"""
FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
"""


def books(folder: Path) -> tuple[Account, Account]:
    """Both accounts, as the journals tell them."""
    server, client = (Account(party(0, n), Journal(folder / f"{n}.db")) for n in range(2))
    return server, client


def total(number: int) -> int:
    """The bytes of so many transfers."""
    return sum(1000 + n for n in range(number))


@pytest.mark.slow
def test_a_killed_process_has_every_transfer_that_it_spoke_of_once(tmp_path: Path) -> None:
    spoken = 0
    for said in (1, 2, 7, 23, 60):  # so that the kill comes at another point each time
        with subprocess.Popen(
            [sys.executable, "-c", GIVING, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(said):
                spoken = int(process.stdout.readline())
            process.kill()
            for line in process.stdout:
                spoken = int(line) if line.endswith("\n") else spoken
        server, client = books(tmp_path)
        given, taken = server.given[client.id], client.taken[server.id]
        assert spoken <= given.settled_number <= taken.number <= given.number <= spoken + 1
        assert given.settled_bytes == total(given.settled_number)
        assert taken.total_bytes == total(taken.number)


def test_a_full_disk_is_said_in_a_sentence_and_loses_nothing(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL + GIVING, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "Free some space" in run.stderr
    spoken = int(run.stdout.split()[-1])
    server, client = books(tmp_path)
    for claim in server.waiting(client.id):
        server.confirm(client.take(claim, claim.size_bytes))
    given = server.given[client.id]
    assert given.settled_bytes == client.taken[server.id].total_bytes == total(given.number)
    assert spoken <= given.number <= spoken + 1
