"""Writing the sources: clean committed files, the same bytes twice, no foreign folder touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sharedllm.bets.registration import Catalogue
from sharedllm.cli.book import assemble
from sharedllm.errors import BadBet


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_catalogue_gives_the_same_sources(made_up: Catalogue, tmp_path: Path) -> None:
    assemble(made_up, tmp_path / "a")
    assemble(made_up, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_assembling_changes_nothing_in_the_checkout(made_up: Catalogue, tmp_path: Path) -> None:
    before = contents(made_up.repository)
    assemble(made_up, tmp_path / "out")
    assert contents(made_up.repository) == before


def test_no_marker_is_left_unfilled(made_up: Catalogue, tmp_path: Path) -> None:
    assemble(made_up, tmp_path)
    assert not [p for p in tmp_path.rglob("*.md") if "<!-- generated" in p.read_text(encoding="utf-8")]


def test_a_page_that_is_gone_from_the_catalogue_is_gone_from_the_book(
    made_up: Catalogue, tmp_path: Path
) -> None:
    assemble(made_up, tmp_path)
    (tmp_path / "bets" / "b999-old.md").write_text("# Old", encoding="utf-8")
    assemble(made_up, tmp_path)
    assert not (tmp_path / "bets" / "b999-old.md").exists()


def test_a_folder_of_somebody_else_is_not_overwritten(made_up: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(BadBet, match="not empty"):
        assemble(made_up, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_checkout_without_a_book_is_refused(made_up: Catalogue, tmp_path: Path) -> None:
    shutil.copytree(made_up.root, tmp_path / "catalogue")
    with pytest.raises(BadBet, match="holds no book"):
        assemble(Catalogue(tmp_path / "catalogue"), tmp_path / "out")


def test_the_downloads_are_the_files_of_the_catalogue(made_up: Catalogue, tmp_path: Path) -> None:
    assemble(made_up, tmp_path)
    copied = tmp_path / "extra" / "files" / "b004-mixture-combiner"
    original = made_up.root / "foundations" / "b004-mixture-combiner"
    assert contents(copied) == contents(original)
