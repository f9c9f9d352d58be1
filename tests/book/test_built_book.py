"""The built HTML, parsed: structure, accessibility, no other address, nothing injected."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup
from typer.testing import CliRunner

from sharedllm.cli.book import app

pytestmark = pytest.mark.slow

THEMES_OWN = {"genindex.html", "search.html"}  # pages without content of ours


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[str, BeautifulSoup]:
    found = {str(p.relative_to(built)): p for p in sorted(built.rglob("*.html")) if "_static" not in p.parts}
    return {
        name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for name, path in found.items()
        if name not in THEMES_OWN
    }


def test_every_expected_page_is_there(pages: dict[str, BeautifulSoup]) -> None:
    wanted = {
        "index",
        "catalogue",
        "policy",
        "methodology",
        "questions",
        "critiques",
        "log",
        "status",
        "contribute",
    }
    wanted |= {f"guides/{name}" for name in ("read", "rerun", "propose", "falsify", "install")}
    wanted |= {f"guides/{name}" for name in ("personalise", "specialists", "audit", "directory")}
    wanted |= {f"reference/{name}" for name in ("manifest", "adapters", "receipts", "wire")}
    assert {f"{name}.html" for name in wanted} <= set(pages)
    assert len([name for name in pages if name.startswith("bets/")]) == 6


def test_no_id_is_used_twice(pages: dict[str, BeautifulSoup]) -> None:
    for name, page in pages.items():
        ids = [element["id"] for element in page.find_all(id=True)]
        assert {i for i in ids if ids.count(i) > 1} == set(), name


def test_every_page_has_one_main_heading_and_no_jump(pages: dict[str, BeautifulSoup]) -> None:
    for name, page in pages.items():
        levels = [int(h.name[1]) for h in page.select("main h1, main h2, main h3, main h4, main h5, main h6")]
        assert levels.count(1) == 1, name
        assert levels[0] == 1, name
        assert all(after - before <= 1 for before, after in pairwise(levels)), name


def test_every_table_has_a_caption_and_scoped_headers(pages: dict[str, BeautifulSoup]) -> None:
    for name, page in pages.items():
        for table in page.find_all("table"):
            assert table.caption, name
            assert table.caption.get_text(strip=True), name
            assert all(cell.get("scope") in ("row", "col") for cell in table.find_all("th")), name


def test_every_picture_has_words(pages: dict[str, BeautifulSoup]) -> None:
    for name, page in pages.items():
        assert all(image.get("alt") for image in page.find_all("img")), name
        for picture in page.select("article svg"):
            described = picture.get("role") == "img" and picture.title and picture.desc
            assert described or picture.get("aria-hidden") == "true", name


def test_every_control_has_a_name(pages: dict[str, BeautifulSoup]) -> None:
    for name, page in pages.items():
        for control in page.select("button, select, input, [role=region]"):
            label = page.find("label", attrs={"for": control.get("id")}) if control.get("id") else None
            words = control.get_text(strip=True) or control.get("aria-label") or control.get("title")
            assert label or words, f"{name}: {control}"[:200]


def test_nothing_is_loaded_from_another_address(pages: dict[str, BeautifulSoup]) -> None:
    for name, page in pages.items():
        for element in page.select("script[src], link[href], img[src], iframe, source[src], object, embed"):
            target = str(element.get("src") or element.get("href") or "")
            assert not urlsplit(target).netloc, f"{name}: {target}"


def test_no_style_sheet_or_inline_script_loads_another_address(
    built: Path, pages: dict[str, BeautifulSoup]
) -> None:
    for sheet in built.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), (
            sheet
        )
    for name, page in pages.items():
        for script in page.select("script:not([src])"):
            assert "//" not in re.sub(r"^\s*//.*$", "", script.get_text(), flags=re.M), name


def test_every_link_inside_the_book_leads_somewhere(built: Path, pages: dict[str, BeautifulSoup]) -> None:
    for name, page in pages.items():
        for link in page.select("a[href]"):
            parts = urlsplit(str(link["href"]))
            if parts.scheme or parts.netloc:
                continue
            target = (built / name).parent / unquote(parts.path) if parts.path else built / name
            assert target.is_file(), f"{name}: {link['href']}"
            if parts.fragment and target.suffix == ".html":
                other = pages[str(target.resolve().relative_to(built.resolve()))]
                assert other.find(id=parts.fragment), f"{name}: {link['href']}"


def test_the_index_has_every_row_without_a_script(pages: dict[str, BeautifulSoup]) -> None:
    page = pages["catalogue.html"]
    for script in page.find_all("script"):
        script.decompose()
    assert len(page.select("table.index:not(.seed) tbody tr")) == 12
    assert len(page.select("table.seed tbody tr")) == 32


def test_what_is_not_claimed_comes_before_what_is_counted(pages: dict[str, BeautifulSoup]) -> None:
    headings = [h.get_text().rstrip("#") for h in pages["index.html"].select("main h2")]
    assert headings[:2] == ["What we do not claim", "Where the catalogue stands"]
    assert "luck alone" in pages["index.html"].get_text()


def test_hostile_text_is_shown_and_not_obeyed(pages: dict[str, BeautifulSoup]) -> None:
    page = pages["bets/b099-hostile.html"]
    article = page.article
    assert not article.find_all(["script", "iframe", "img", "b"])
    assert not [
        a for a in page.select("a[href]") if a["href"].startswith("javascript") or "tracker" in a["href"]
    ]
    assert not [e for e in page.find_all(True) if any(key.startswith("on") for key in e.attrs)]
    assert "<script>alert(1)</script>" in article.get_text()


def test_hostile_text_makes_no_heading(pages: dict[str, BeautifulSoup]) -> None:
    headings = [h.get_text() for h in pages["bets/b099-hostile.html"].select("main h1, main h2, main h3")]
    assert not [text for text in headings if text.startswith(("A heading", "big"))]


def test_a_reproduce_command_can_be_copied(pages: dict[str, BeautifulSoup]) -> None:
    page = pages["bets/b004-mixture-combiner.html"]
    assert page.select_one("#run-it-yourself .highlight-console")
    assert page.select_one('script[src*="copybutton.js"]')


def test_the_page_speaks_of_no_machine_path(built: Path) -> None:
    for path in built.rglob("*.html"):
        assert str(built.parents[3]) not in path.read_text(encoding="utf-8"), path


def test_building_again_gives_the_same_pages(built: Path, tmp_path: Path) -> None:
    root = built.parents[3]
    ran = CliRunner().invoke(app, ["--catalogue", str(root), "--out", str(tmp_path / "again")])
    assert ran.exit_code == 0
    again = tmp_path / "again" / "_build" / "html"
    for path in sorted(built.rglob("*.html")):
        assert path.read_bytes() == (again / path.relative_to(built)).read_bytes(), path.name


def test_a_warning_of_the_builder_is_an_error(built: Path, tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    shutil.copytree(built.parents[3], root, ignore=shutil.ignore_patterns("build"))
    with (root / "book" / "log.md").open("a", encoding="utf-8") as page:
        page.write("\n[nowhere](no-such-page.md)\n")
    ran = CliRunner().invoke(app, ["--catalogue", str(root)])
    assert ran.exit_code != 0
    assert "no-such-page" in ran.stderr


def test_the_only_menu_button_is_the_visible_one(pages: dict[str, BeautifulSoup]) -> None:
    # The theme's scripts wire the first .primary-toggle; its own empty top bar would hold that one.
    for name, page in pages.items():
        assert len(page.select(".primary-toggle")) == 1, name
        assert page.select_one(".bd-header-article .primary-toggle"), name
