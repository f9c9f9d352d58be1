"""Settings come from a flag, else the environment (``SHAREDLLM_…``), else a TOML file, else the default.

The command line reads flags and environment; this module reads the file and hands each command its share. A
key at the top of the file holds for every command that has such an option; a table named after a command
holds for that command alone and wins. Dashes and underscores are the same.

*Covered*: a file that is missing, unreadable, not TOML, too large, or names what a command doesn't have.
*Not covered*: types and ranges, which the command checks as if the value had come from a flag.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sharedllm.nodes.operations.errors import BadSetting

__all__ = ["default_settings_path", "read_settings", "settings_of"]

_MAX_BYTES = 1 << 16


def default_settings_path() -> Path:
    """Return ``$XDG_CONFIG_HOME/sharedllm/settings.toml``; it need not exist."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "sharedllm" / "settings.toml"


def read_settings(path: Path) -> dict[str, Any]:
    """Read a settings file; raises ``BadSetting`` when it can't be read or is not TOML."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise BadSetting(
            f"The settings file {path} can't be read ({error.strerror}); give another with --settings."
        ) from error
    if len(data) > _MAX_BYTES:
        raise BadSetting(f"The settings file {path} is larger than {_MAX_BYTES} bytes; is it another file?")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadSetting(f"The settings file {path} is not TOML: {error}.") from error


def settings_of(
    settings: Mapping[str, Any], command: str, options: Collection[str], commands: Collection[str]
) -> dict[str, Any]:
    """Return what ``settings`` say about ``command``; raises ``BadSetting`` for an unknown option or table.

    ``options`` are the command's parameter names (underscores); ``commands`` are the tables that may exist.
    """
    unknown = sorted(
        key for key, value in settings.items() if isinstance(value, Mapping) and key not in commands
    )
    if unknown:
        raise BadSetting(
            f"The settings have a table [{unknown[0]}], but there is no such command; "
            f"tables may be: {', '.join(sorted(commands))}."
        )
    shared = {_name(key): value for key, value in settings.items() if not isinstance(value, Mapping)}
    own = {_name(key): value for key, value in settings.get(command, {}).items()}
    lost = sorted(own.keys() - set(options))
    if lost:
        raise BadSetting(
            f"The settings say [{command}] {lost[0]}, which `sharedllm {command}` doesn't have; "
            f"it has: {', '.join(sorted(options))}."
        )
    return {key: value for key, value in shared.items() if key in options} | own


def _name(key: str) -> str:
    return key.replace("-", "_")
