"""A store that holds some specialists' manifests and blobs and nothing else, and a process that lives on it.

*Covered*: the process has another store and shares no state with this one. *Not covered*: the same package,
processor and libraries are on both sides; bits may differ elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from sharedllm.model import Transformer
from sharedllm.store import Blobs
from sharedllm.store.specialists import Signed

__all__ = ["Alone", "digest"]

_LIVE = """
import json, sys, torch
from sharedllm.bets.tampering import digest
from sharedllm.store.specialists import Signed, live
torch.set_num_threads(int(sys.argv[2]))
signed = Signed.from_bytes(open(sys.argv[1], "rb").read(), sys.argv[1])
print(digest(live(signed).model, torch.tensor(json.load(sys.stdin))))
"""


@torch.no_grad()
def digest(model: Transformer, tokens_BT: Tensor) -> str:
    """SHA-256 of the fp32 logits of every position."""
    return hashlib.sha256(model(tokens_BT).float().numpy().tobytes()).hexdigest()


class Alone:
    """Copies of manifests and blobs in ``folder``, which is to be empty."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.blobs = folder, Blobs(folder / "blobs")

    def take(self, signed: Signed) -> None:
        """Copy a specialist out of this process's store; blobs that it shares with another come once."""
        for sha256 in signed.blobs:
            path = self.blobs.path(sha256)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Blobs().path(sha256), path)
        self._manifest(signed).write_bytes(signed.to_bytes())

    def lived(self, signed: Signed, tokens_BT: Tensor) -> str:
        """The ``digest`` that a process of its own finds, or what it died of."""
        command = [sys.executable, "-c", _LIVE, str(self._manifest(signed)), str(torch.get_num_threads())]
        done = subprocess.run(
            command,
            input=json.dumps(tokens_BT.tolist()),
            env={**os.environ, "SHAREDLLM_HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() or done.stderr[-500:]

    def _manifest(self, signed: Signed) -> Path:
        return self.folder / f"{signed.id}.json"
