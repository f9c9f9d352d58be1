"""Names by content, and results that are worked out once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sharedllm.store import cached, canonical_json, home, sha256_of


def write_answer(folder: Path) -> None:
    (folder / "answer").write_text("42")


def test_a_result_is_computed_once() -> None:
    first = cached("fit", {"seed": 1}, write_answer)
    assert cached("fit", {"seed": 1}, pytest.fail) == first
    assert (first / "answer").read_text() == "42"


def test_another_key_is_another_result() -> None:
    assert cached("fit", {"seed": 1}, write_answer) != cached("fit", {"seed": 2}, write_answer)


def test_the_key_lies_beside_the_result() -> None:
    assert (cached("fit", {"seed": 1}, write_answer) / "key.json").read_bytes() == b'{"seed":1}'


def test_a_failed_computation_leaves_nothing(home: Path) -> None:
    def fail(folder: Path) -> None:
        write_answer(folder)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cached("fit", {}, fail)
    assert list((home / "cache" / "fit").iterdir()) == []


def test_of_two_processes_one_computes_and_the_other_waits(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        "from sharedllm.store import cached\n"
        "def compute(folder):\n"
        f"    open({str(log)!r}, 'a').write('computed\\n')\n"
        "    (folder / 'answer').write_text('42')\n"
        "assert (cached('fit', {}, compute) / 'answer').read_text() == '42'\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [child.wait() for child in both] == [0, 0]
    assert log.read_text() == "computed\n"


def test_the_environment_says_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHAREDLLM_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "sharedllm"


def test_a_hash_of_a_file_is_the_hash_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert sha256_of(tmp_path / "file") == sha256_of(b"abc") == known


@pytest.mark.parametrize("obj", [float("nan"), {"a": float("inf")}])
def test_what_is_no_number_has_no_canonical_form(obj: object) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(obj)


def test_a_key_that_is_no_string_has_no_canonical_form() -> None:
    with pytest.raises(TypeError, match="is a string"):
        canonical_json({"a": [{1: 2}]})


def test_hashing_and_caching_need_no_torch() -> None:
    code = "import sys, sharedllm.store; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
