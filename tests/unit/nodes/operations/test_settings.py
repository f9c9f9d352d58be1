"""A settings file is read strictly: what it can't mean is a sentence, not silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharedllm.nodes.operations import BadSetting, default_settings_path, read_settings, settings_of

COMMANDS = ("up", "node")


def test_a_table_wins_over_the_top_of_the_file() -> None:
    settings = {"state": "/a", "port": 1, "up": {"port": 2}}
    assert settings_of(settings, "up", ("state", "port"), COMMANDS) == {"state": "/a", "port": 2}


def test_a_key_at_the_top_reaches_only_commands_that_have_it() -> None:
    assert settings_of({"port": 1, "rpc-port": 2}, "node", ("rpc_port",), COMMANDS) == {"rpc_port": 2}


def test_dashes_and_underscores_are_the_same() -> None:
    assert settings_of({"up": {"no-browser": True}}, "up", ("no_browser",), COMMANDS) == {"no_browser": True}


def test_an_option_that_the_command_lacks_is_named() -> None:
    with pytest.raises(
        BadSetting, match=r"\[up\] wrokers, which `sharedllm up` doesn't have; it has: workers"
    ):
        settings_of({"up": {"wrokers": 3}}, "up", ("workers",), COMMANDS)


def test_a_table_of_no_command_is_named() -> None:
    with pytest.raises(BadSetting, match=r"table \[upp\], but there is no such command"):
        settings_of({"upp": {}}, "up", ("workers",), COMMANDS)


def test_a_file_is_toml(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[node]\nname = "attic"\n')
    assert read_settings(path) == {"node": {"name": "attic"}}


@pytest.mark.parametrize("data", [b"a = ", b"\xff\xfe", b"a=1\na=2"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(data)
    with pytest.raises(BadSetting, match="is not TOML"):
        read_settings(path)


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"none\.toml can't be read"):
        read_settings(tmp_path / "none.toml")


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b"#" * 70_000)
    with pytest.raises(BadSetting, match="larger than 65536 bytes"):
        read_settings(path)


def test_the_default_file_is_where_the_desktop_keeps_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere")
    assert default_settings_path() == Path("/somewhere/sharedllm/settings.toml")
