"""The kernel is compiled once, by whatever compiler there is, and missed by a sentence where none is."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sharedllm.engines import NoKernel
from sharedllm.engines.ternary import RestoredProjection, kernel, products, projection, runs_of_each
from tests.unit.engines.ternary.matrices import drawn, trits

REAL = shutil.which("c++")


@pytest.fixture(autouse=True)
def _anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store without a kernel, and a process that has none loaded."""
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "home"))
    kernel.cache_clear()
    yield
    kernel.cache_clear()


def compiler(folder: Path, script: str) -> Path:
    """A compiler that says its version, and otherwise does what ``script`` says."""
    folder.mkdir(exist_ok=True)
    path = folder / "c++"
    version = 'case "$*" in *--version*) echo fake 1.0; exit;; esac'
    path.write_text(f"#!/bin/sh\n{version}\n{script}\n", encoding="ascii")
    path.chmod(0o755)
    return path


def test_without_a_compiler_there_is_no_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoKernel, match=r"There is no C\+\+ compiler here .* Install one"):
        kernel()


def test_a_compiler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "absent++ -O1")
    with pytest.raises(NoKernel, match=r"absent\+\+"):
        kernel()


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(compiler(tmp_path / "bin", "echo 'kernel.cpp:1: too old' >&2; exit 1")))
    with pytest.raises(NoKernel, match=r"can't compile the kernel \(kernel.cpp:1: too old\)"):
        kernel()


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(compiler(tmp_path / "bin", "exit 1")))
    with pytest.raises(NoKernel):
        kernel()
    assert not list((tmp_path / "home").rglob("kernel.so"))


def test_a_kernel_that_can_not_be_loaded_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = 'for out; do :; done; case "$*" in *-fopenmp*) exit 1;; esac; echo no library > "$out"'
    monkeypatch.setenv("CXX", str(compiler(tmp_path / "bin", last)))
    with pytest.raises(NoKernel, match="can't be loaded"):
        kernel()


def test_without_a_kernel_the_same_bits_come_from_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "absent"))
    monkeypatch.setattr(products, "_said", set())
    runs = runs_of_each(trits(5, 40))[0]
    with caplog.at_level(logging.WARNING):
        made = [projection(runs), projection(runs)]
    assert [type(each) for each in made] == [RestoredProjection] * 2
    assert len(caplog.messages) == 1


@pytest.mark.skipif(REAL is None, reason="needs a compiler")
def test_a_kernel_in_the_store_is_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    script = f'echo call >> {calls}; exec {REAL} "$@" -O0'
    monkeypatch.setenv("CXX", str(compiler(tmp_path / "bin", script)))
    for _ in range(2):
        kernel.cache_clear()
        kernel()
    assert calls.read_text().count("call") == 1


@pytest.mark.skipif(REAL is None, reason="needs a compiler")
def test_a_compiler_without_openmp_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'case "$*" in *-fopenmp*) exit 1;; esac; exec {REAL} "$@" -O0'
    monkeypatch.setenv("CXX", str(compiler(tmp_path / "bin", script)))
    runs, x = runs_of_each(trits(300, 640))[0], drawn(4, 640)
    torch.set_num_threads(2)
    with torch.inference_mode():
        assert torch.equal(projection(runs)(x), RestoredProjection(runs)(x))
