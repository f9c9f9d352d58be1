"""What can be said of the page's files without a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from sharedllm.nodes.web import FOLDER

FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in {".html", ".css", ".js", ".svg"})
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
PAGE = (FOLDER / "index.html").read_text(encoding="utf-8")
STYLE = (FOLDER / "style.css").read_text(encoding="utf-8")
ALL_SCRIPTS = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
MAX_PAGE_BYTES = 120_000  # the whole page, before compression
NAMESPACE = "http://www.w3.org/2000/svg"


class Reader(HTMLParser):
    """Collects every element with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


READER = Reader()
READER.feed(PAGE)
IDS = [attributes["id"] for _, attributes in READER.elements if "id" in attributes]


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) <= MAX_PAGE_BYTES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_another_address(path: object) -> None:
    text = path.read_text(encoding="utf-8").replace(NAMESPACE, "")  # type: ignore[attr-defined]
    assert not re.search(r"https?:|wss?:|[\"'(]//\w|@import|url\(", text)


def test_no_script_turns_a_string_into_markup_or_code() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser"
    )
    assert not re.search(forbidden, ALL_SCRIPTS)


def test_nothing_is_inline_so_that_a_strict_policy_holds() -> None:
    assert not [a for _, a in READER.elements if "style" in a or any(name.startswith("on") for name in a)]
    assert all(a.get("src") for tag, a in READER.elements if tag == "script")
    assert not [tag for tag, _ in READER.elements if tag == "style"]


def test_an_id_is_given_once() -> None:
    assert len(IDS) == len(set(IDS))


def test_every_id_that_the_page_refers_to_exists() -> None:
    referring = ("for", "aria-controls", "aria-labelledby", "aria-describedby")
    wanted = [a[name] for _, a in READER.elements for name in referring if name in a]
    wanted += [
        a["href"].removeprefix("#") for _, a in READER.elements if (a.get("href") or "").startswith("#")
    ]
    assert {one for some in wanted for one in (some or "").split()} <= set(IDS)


def test_every_id_that_a_script_looks_up_exists() -> None:
    wanted = set(re.findall(r'(?:byId|getElementById)\("([^"]+)"\)', ALL_SCRIPTS))
    made_by_scripts = set(re.findall(r'id: "([^"]+)"', ALL_SCRIPTS))
    assert wanted <= set(IDS) | made_by_scripts


def test_every_file_that_the_page_names_is_there_and_none_is_left_over() -> None:
    named = set(re.findall(r'"/web/([^"]+)"', PAGE)) | set(re.findall(r'from "\./([^"]+)"', ALL_SCRIPTS))
    assert named == {path.name for path in FILES} - {"index.html"}


def test_every_field_and_button_has_a_name() -> None:
    labelled = {a["for"] for tag, a in READER.elements if tag == "label" and "for" in a} | {"tint"}
    fields = [a for tag, a in READER.elements if tag in {"input", "textarea", "select"}]
    assert not [a for a in fields if a.get("id") not in labelled]


def test_the_dark_colours_are_the_same_by_choice_and_by_preference() -> None:
    chosen = STYLE[STYLE.index(':root[data-theme="dark"] {') :].split("}")[0]
    preferred = STYLE[STYLE.index(":root:not([data-theme]) {") :].split("}")[0]
    colours = r"--[a-z0-9-]+: #[0-9a-f]{6}"
    assert re.findall(colours, chosen) == re.findall(colours, preferred) != []
