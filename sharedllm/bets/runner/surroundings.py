"""What of this machine reaches a notebook, and what of it stays out of the notebook that is published."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sharedllm.bets.registration import Catalogue
from sharedllm.bets.runner.kernel import OUTPUT_LIMIT
from sharedllm.bets.runner.recording import SCOPE
from sharedllm.store import home

__all__ = ["anonymous", "environment"]

# Only these reach a notebook: no start-up files, no Jupyter settings of the machine, no secrets of the shell.
_KEPT = {
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "PATH",
    "PYTHONPATH",
    "TMPDIR",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
}
_KEPT |= {"HF_HOME", "HF_HUB_OFFLINE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"}
_KEPT_PREFIXES = ("CUDA_", "LC_", "MKL_", "NVIDIA_", "OMP_", "PIP_", "SHAREDLLM_", "TORCH_", "XDG_")
_KEPT_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@contextlib.contextmanager
def environment(scope: str, output_limit_bytes: int) -> Iterator[dict[str, str]]:
    """The child's environment: the few variables that matter, and Jupyter folders of its own."""
    with tempfile.TemporaryDirectory(prefix="sharedllm-run-", ignore_cleanup_errors=True) as folder:
        yield {
            # threads that spin while they wait slow two busy programs 5 to 10 times [measured]
            "OMP_WAIT_POLICY": "passive",
            **{name: value for name, value in os.environ.items() if _is_kept(name)},
            "IPYTHONDIR": f"{folder}/ipython",
            "JUPYTER_CONFIG_DIR": f"{folder}/config",
            "JUPYTER_DATA_DIR": f"{folder}/data",
            "JUPYTER_RUNTIME_DIR": f"{folder}/runtime",
            "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", f"{folder}/matplotlib"),
            "PYTHONHASHSEED": "0",
            "SHAREDLLM_HOME": str(home()),
            SCOPE: scope,
            OUTPUT_LIMIT: str(output_limit_bytes),
        }


def _is_kept(name: str) -> bool:
    return name in _KEPT or name.startswith(_KEPT_PREFIXES) or name.lower() in _KEPT_PROXIES


def anonymous(notebook: dict[str, Any], catalogue: Catalogue, folder: Path) -> dict[str, Any]:
    """Take the machine's folders out of an executed notebook: it will be published."""
    python = Path(sys.prefix)  # goes before the repository, which may hold it; warnings name its files
    places = {folder: "<run>", python: "<python>", catalogue.repository: "<repository>"}
    places |= {home(): "<store>", Path.home(): "~"}
    text = json.dumps(notebook, ensure_ascii=False)
    for path, name in places.items():
        if len(path.parts) > 1:  # a home of "/" would take every slash with it
            text = text.replace(json.dumps(str(path), ensure_ascii=False)[1:-1], name)
    clean: dict[str, Any] = json.loads(text)
    return clean
