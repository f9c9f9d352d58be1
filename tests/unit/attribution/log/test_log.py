"""A log that grows: entries come back, files lie where the specification says, nobody else writes."""

from __future__ import annotations

import stat
import subprocess
import sys

import pytest

from sharedllm.attribution.log import LARGEST_ENTRY_BYTES, Checkpoint, Log, Proof, leaf_hash
from sharedllm.attribution.log.tiles import bundle_path, tile_path
from sharedllm.errors import BadLog
from tests.unit.attribution.log.naive import NAME, PRIVATE, naive_root


def some(count: int, first: int = 0) -> list[bytes]:
    return [f"entry {first + i}".encode() for i in range(count)]


def test_an_empty_log_signs_the_hash_of_nothing(opened):
    log = opened()
    assert Checkpoint.verified(log.note, log.key) == Checkpoint(NAME, 0, naive_root([]))


def test_a_batch_gets_the_next_indices(opened):
    log = opened()
    assert [log.append(some(3)), log.append(some(2, 3)), log.size] == [0, 3, 5]


def test_every_entry_can_be_proved_across_full_tiles(opened):
    log, entries = opened(), some(700)
    for start in range(0, 700, 70):
        log.append(entries[start : start + 70])
    proved = [log.prove(i).verify(entry, log.key) for i, entry in enumerate(entries)]
    assert set(proved) == {Checkpoint(NAME, 700, naive_root(entries))}


def test_entries_of_full_bundles_come_back_from_disk(opened):
    log, entries = opened(), some(600)
    log.append(entries)
    assert [log.entry(i) for i in (0, 255, 256, 511, 512, 599)] == [
        entries[i] for i in (0, 255, 256, 511, 512, 599)
    ]


def test_a_reopened_log_goes_on_where_it_was(opened):
    log, entries = opened(), some(300)
    log.append(entries)
    log.close()
    again = opened()
    again.append(some(10, 300))
    assert again.checkpoint == Checkpoint(NAME, 310, naive_root(some(310)))


def test_tiles_and_bundles_lie_where_the_specification_says(opened, tmp_path):
    log = opened()
    log.append(some(513))
    log.close()
    files = {p.relative_to(log.folder).as_posix() for p in log.folder.rglob("*") if p.is_file()}
    tiles = {"tile/0/000", "tile/0/001", "tile/0/002.p/1", "tile/1/000.p/2"}
    bundles = {"tile/entries/000", "tile/entries/001", "tile/entries/002.p/1"}
    assert files - {"journal", "lock"} == {"checkpoint"} | tiles | bundles


def test_a_large_index_is_spread_over_folders():
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert bundle_path(273, 112) == "tile/entries/273.p/112"


def test_a_level_one_tile_holds_the_roots_of_full_tiles(opened):
    log, entries = opened(), some(256)
    log.append(entries)
    log.close()
    assert (log.folder / "tile/0/000").read_bytes() == b"".join(map(leaf_hash, entries))
    assert (log.folder / "tile/1/000.p/1").read_bytes() == naive_root(entries)


def test_partial_tiles_of_an_earlier_checkpoint_are_removed(opened):
    log = opened()
    log.append(some(3))
    log.publish()
    log.append(some(4, 3))
    log.publish()
    assert [p.name for p in log.folder.glob("tile/0/000.p/*")] == ["7"]


def test_files_are_for_their_owner_alone(opened):
    log = opened()
    log.append(some(300))
    log.close()
    modes = {stat.S_IMODE(p.stat().st_mode) for p in log.folder.rglob("*") if p.is_file()}
    folders = {stat.S_IMODE(p.stat().st_mode) for p in [log.folder, *log.folder.rglob("*")] if p.is_dir()}
    assert (modes, folders) == ({0o600}, {0o700})


def test_a_second_writer_is_refused(opened):
    opened()
    with pytest.raises(BadLog, match="Another process"):
        opened()


def test_an_entry_that_no_bundle_holds_leaves_the_log_as_it_was(opened):
    log = opened()
    log.append(some(2))
    with pytest.raises(BadLog, match="65,535"):
        log.append([b"x" * (LARGEST_ENTRY_BYTES + 1)])
    assert log.checkpoint == Checkpoint(NAME, 2, naive_root(some(2)))


def test_an_entry_beyond_the_end_is_refused(opened):
    log = opened()
    with pytest.raises(BadLog, match="no entry"):
        log.entry(0)


def test_another_key_cannot_go_on_with_a_log(opened, tmp_path):
    log = opened()
    log.append(some(1))
    log.close()
    with pytest.raises(BadLog, match="not signed by"):
        opened(log.folder, "sharedllm/other")


def test_a_proof_survives_being_written_down(opened):
    log = opened()
    log.append(some(77))
    proof = log.prove(5)
    assert Proof.parse(str(proof)) == proof


def test_a_changed_bundle_is_noticed_when_it_is_read(opened):
    log = opened()
    log.append(some(300))
    path = log.folder / "tile/entries/000"
    path.write_bytes(path.read_bytes().replace(b"entry 7", b"entry 8"))
    with pytest.raises(BadLog, match="not those that were logged"):
        log.entry(7)


def test_the_journal_alone_has_what_was_not_published(opened):
    log = opened()
    log.append(some(9))
    assert (log.published, (log.folder / "checkpoint").exists()) == (False, False)


def test_a_log_needs_no_torch():
    script = (
        "import sys, sharedllm.attribution.log, sharedllm.attribution.receipts; "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_rolled_back_log_does_not_extend_what_it_was(opened, tmp_path):
    log = opened()
    log.append(some(5))
    seen = log.checkpoint
    earlier = Log(tmp_path / "earlier", NAME, PRIVATE)
    earlier.append(some(3))
    with pytest.raises(BadLog, match="rolled back"):
        earlier.checkpoint.check_extends(seen, [])
    earlier.close()


def test_a_forked_log_does_not_extend_what_it_was(opened, tmp_path):
    log = opened()
    log.append(some(5))
    seen = log.checkpoint
    fork = Log(tmp_path / "fork", NAME, PRIVATE)
    fork.append([*some(4), b"another fifth", b"sixth"])
    with pytest.raises(BadLog, match="forked or rewritten"):
        fork.checkpoint.check_extends(seen, fork.consistency(5))
    fork.close()


def test_a_grown_log_extends_what_it_was(opened):
    log = opened()
    log.append(some(5))
    seen = log.checkpoint
    log.append(some(400, 5))
    log.checkpoint.check_extends(seen, log.consistency(5))


def test_another_log_extends_nothing_of_this_one():
    with pytest.raises(BadLog, match="two logs"):
        Checkpoint("a", 0, naive_root([])).check_extends(Checkpoint("b", 0, naive_root([])), [])
