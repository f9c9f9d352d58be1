"""What 64 workers × 38 million numbers take: peak memory and time of each rule, in a process of its own.

The workers' vectors lie in files, 9.7 GB of fp32 in all; a rule reads them twice, block by block. The peak is
the child's, with Python and torch in it (about 0.3 GB). Where the disk has no room, bf16 is used, and said.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from sharedllm.robust import Files, aggregate

__all__ = ["measure"]

_WORKERS, _SIZE = 64, 38_000_000
_RULES = (
    "mean",
    "median",
    "nnm+median",
    "trimmed_mean",
    "geometric_median",
    "multi_krum",
    "centered_clipping",
)
_ASKED_BYTES = 4 << 30
_SPARE_BYTES = 4 << 30
_F = 15


def measure(quick: bool = False) -> list[str]:
    """Lines of a table: for each rule, the peak of resident memory and the seconds that it took."""
    size, rules = (500_000, _RULES[1:3]) if quick else (_SIZE, _RULES)
    with tempfile.TemporaryDirectory(prefix="sharedllm-robust-") as name:
        folder = Path(name)
        room_bytes = shutil.disk_usage(folder).free - _SPARE_BYTES
        dtype = torch.float32 if 4 * _WORKERS * size < room_bytes else torch.bfloat16
        _write(folder, size, dtype)
        lines = [
            f"{_WORKERS} workers × {size:,} numbers of {dtype} in files, f = {_F}, "
            f"{torch.get_num_threads()} threads; asked: peak ≤ 4 GiB",
            f"{'rule':22}{'peak GiB':>9}{'seconds':>9}  within",
        ]
        for rule in rules:
            command = [
                sys.executable,
                "-m",
                __name__,
                name,
                str(size),
                str(dtype).removeprefix("torch."),
                rule,
            ]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            peak_bytes, took_s = int(said[0]), float(said[1])
            within = "yes" if peak_bytes <= _ASKED_BYTES else "NO"
            lines.append(f"{rule:22}{peak_bytes / (1 << 30):9.2f}{took_s:9.1f}  {within}")
    return lines


def _write(folder: Path, size: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    common_P = torch.randn(size, generator=generator)
    for worker in range(_WORKERS):
        length = 1000.0 if worker < _F else 1.0
        noise_P = torch.randn(size, generator=generator)
        vector_P = (length * (common_P + noise_P)).to(dtype)
        (folder / f"{worker:03}").write_bytes(memoryview(vector_P.view(torch.uint8).numpy()))


def _child(folder: str, size: str, dtype: str, rule: str) -> None:
    source = Files(sorted(Path(folder).iterdir()), int(size), getattr(torch, dtype))
    began_s = time.monotonic()
    found_P = aggregate(source, rule, _F)
    assert found_P.shape == (int(size),)
    took_s = time.monotonic() - began_s
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, f"{took_s:.1f}")


if __name__ == "__main__":
    _child(*sys.argv[1:])
