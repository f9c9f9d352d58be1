"""The library ``byzfl`` without what it asks for: its rules and attacks, loaded past its own ``__init__``.

Its package imports training code that needs torchvision, matplotlib and seaborn, and its rules import SciPy
for a single function; none of that is needed to aggregate. Install it with ``pip install --no-deps
byzfl==0.0.11``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["aggregators", "attacks", "installed"]


def installed() -> bool:
    """Say whether the library is there."""
    return importlib.util.find_spec("byzfl") is not None


def aggregators() -> Any:
    """Give its rules and pre-aggregations."""
    return _module("byzfl.aggregators")


def attacks() -> Any:
    """Give its attacks."""
    return _module("byzfl.attacks")


def _module(name: str) -> Any:
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        assert spec is not None
        package = ModuleType("byzfl")
        package.__path__ = list(spec.submodule_search_locations or [])
        sys.modules["byzfl"] = package
    if importlib.util.find_spec("scipy") is None and "scipy" not in sys.modules:
        scipy, spatial, distance = (
            ModuleType(n) for n in ("scipy", "scipy.spatial", "scipy.spatial.distance")
        )
        distance.cdist = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=-1)  # type: ignore[attr-defined]
        spatial.distance = distance  # type: ignore[attr-defined]
        sys.modules |= {"scipy": scipy, "scipy.spatial": spatial, "scipy.spatial.distance": distance}
        try:
            return importlib.import_module(name)
        finally:
            for stand_in in ("scipy", "scipy.spatial", "scipy.spatial.distance"):
                del sys.modules[stand_in]  # others must not take it for the real one
    return importlib.import_module(name)
