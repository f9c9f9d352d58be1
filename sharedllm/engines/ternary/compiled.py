"""The kernel as machine code: compiled from its source when first used, kept in the store, loaded once.

One call of the system's C++ compiler, which takes two seconds: the source knows nothing of torch or Python,
so no header of theirs is needed, and what was compiled outlives both. Its instructions are chosen when it
runs.

*Covered*: two processes that compile at once (one waits), no compiler, one that fails, one without OpenMP
(the kernel then runs on one thread). *Not covered*: whoever may write to this user's store may replace the
machine code.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from sharedllm import store
from sharedllm.engines.errors import NoKernel

__all__ = ["INSTRUCTIONS", "Kernel", "kernel"]

INSTRUCTIONS = ("portable", "AVX2", "AVX-512 VNNI")
_HERE = Path(__file__).parent
_SOURCES = ("kernel.cpp", "dots.inc")
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off")
_COMPILERS = ("c++", "g++", "clang++")
_PATIENCE_S = 300.0
_WITHOUT = "ternary weights are multiplied as fp32: the same numbers, slowly and in sixteen times the memory."

_int, _long, _pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The functions of ``kernel.cpp``, and which of ``INSTRUCTIONS`` are the best that there are here."""

    multiply: Any
    lay_out: Any
    instructions: int


@functools.cache
def kernel() -> Kernel:
    """Compile the kernel unless the store has it, and load it. Raises ``NoKernel``, ``WriteFailed``."""
    compiler = _compiler()
    key = {
        "sources": {name: store.sha256_of(_HERE / name) for name in _SOURCES},
        "compiler": _version(compiler),
        "flags": list(_FLAGS),
        "machine": platform.platform(),
    }
    folder = store.cached("ternary-kernel", key, lambda empty: _compile(compiler, empty))
    try:
        library = ctypes.CDLL(str(folder / "kernel.so"))
    except OSError as error:
        raise NoKernel(
            f"The compiled kernel in {folder} can't be loaded ({error}). Is the store on a disk that allows "
            "programs? SHAREDLLM_HOME says where it is."
        ) from error
    multiply, lay_out = library.sharedllm_multiply, library.sharedllm_lay_out
    multiply.argtypes = [_pointer, _long, _pointer, _pointer, *[_long] * 4, *[_int] * 3, _pointer]
    multiply.restype = None
    lay_out.argtypes = [_pointer, _long, _long, _pointer]
    return Kernel(multiply, lay_out, library.sharedllm_instructions())


def _compiler() -> list[str]:
    given = shlex.split(os.environ.get("CXX", ""))
    for name in [given[0]] if given else _COMPILERS:
        if found := shutil.which(name):
            return [found, *given[1:]]
    raise NoKernel(
        f"There is no C++ compiler here ({given[0] if given else ', '.join(_COMPILERS)}), so {_WITHOUT} "
        "Install one, such as Debian's g++."
    )


def _version(compiler: list[str]) -> str:
    return _called([*compiler, "--version"]).stdout.decode(errors="replace").partition("\n")[0]


def _compile(compiler: list[str], folder: Path) -> None:
    call = [*compiler, *_FLAGS, str(_HERE / "kernel.cpp"), "-o", str(folder / "kernel.so")]
    if _called([*call, "-fopenmp"]).returncode == 0:
        return
    done = _called(call)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise NoKernel(
            f"{compiler[0]} can't compile the kernel ({said[:300]}), so {_WITHOUT} "
            "Install another and name it in CXX."
        )


def _called(call: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(call, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoKernel(f"The C++ compiler {call[0]} can't be run ({error}); name another in CXX.") from error
