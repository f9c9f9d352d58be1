"""Each parser, on a made-up text in the format of its source."""

from __future__ import annotations

import pytest

from sharedllm.corpus.novels import chapters
from sharedllm.corpus.plays import parse_play
from sharedllm.corpus.poems import passages, without_apparatus
from sharedllm.corpus.programs import definitions, without_banner
from sharedllm.corpus.reference import parse_devil, parse_jargon, plain_text
from sharedllm.corpus.scripture import parse_bible
from sharedllm.errors import DownloadFailed

SCENE = "He speaks. " * 300
PLAY = f"""# The Test

## ACT I

### SCENE I. A room.

_Enter ANNE_

**ANNE**  
Good morrow to my_self_.  
{SCENE}

### SCENE II. A field.

**BEN**  
Farewell.  
{SCENE}
"""  # noqa: W291

BIBLE = '''
from pythonbible.bible.bible import Bible

bible = Bible(
    Version.KING_JAMES,
    """In [the] beginning. And God saw. These are the names.""",
    {1001001: 0, 1001002: 20, 2001001: 33},
    {1001001: 19, 1001002: 32, 2001001: 53},
    {Book.GENESIS: {1: 2}},
    {Book.GENESIS: "Genesis", Book.EXODUS: "1 Exodus"},
)
'''


def test_a_play_is_cut_at_its_scenes() -> None:
    titles = [document.title for document in parse_play("test", PLAY).documents]
    assert titles == ["ACT I, SCENE I. A room.", "ACT I, SCENE II. A field."]


def test_a_play_loses_its_markdown_and_keeps_its_words() -> None:
    text = parse_play("test", PLAY).documents[0].text
    assert text.startswith("SCENE I. A room.\n\nEnter ANNE\n\nANNE\nGood morrow to my_self_.\nHe speaks.")


def test_a_bible_is_read_without_running_it() -> None:
    books = parse_bible("raise SystemExit('executed')\n" + BIBLE)
    assert books["genesis"].documents[0].text == "In the beginning.\nAnd God saw.\n"


def test_books_of_the_bible_are_named_by_the_package() -> None:
    assert list(parse_bible(BIBLE)) == ["genesis", "1-exodus"]


@pytest.mark.parametrize("module", ["", "x = 1", "bible = Bible(", "bible = Bible(1, f(2), 3, 4, 5, 6)"])
def test_a_module_without_a_bible_is_refused(module: str) -> None:
    with pytest.raises(DownloadFailed, match="no Bible in the expected form"):
        parse_bible(module)


def test_the_apparatus_of_editors_goes() -> None:
    title, notes = "THE WORK\n\nby William Shakespeare\n\n", "Notes: on it\n1 men] man\n\n"
    text = f"{title}A line     10\nA line 20 of men\n\n{notes}Last"
    assert without_apparatus(text).split("\n") == ["", "A line", "A line 20 of men", "", "", "", "Last"]


def test_verse_is_cut_at_its_paragraphs() -> None:
    text = "  Of man\nand fruit\n  Say first\nwhat cause\n\nNew stanza\n"
    assert [title for title, _ in passages(text)] == ["Of man", "Say first", "New stanza"]


def test_a_module_is_cut_before_decorators() -> None:
    code = "import a\n\n@one\n@two\nclass B:\n    def c(self): ...\n\ndef d(): ...\n"
    assert definitions(code) == [
        ("head", "import a\n\n"),
        ("B", "@one\n@two\nclass B:\n    def c(self): ...\n\n"),
        ("d", "def d(): ...\n"),
    ]


def test_a_licence_banner_goes() -> None:
    assert without_banner("# Copyright 2001 A. Person\n# All rights.\n\nimport a\n") == "import a\n"


def test_other_leading_comments_stay() -> None:
    assert without_banner("# Sorts a list.\nimport a\n") == "# Sorts a list.\nimport a\n"


def test_a_novel_is_cut_at_its_chapters() -> None:
    novel = "EMMA\n\nBy Jane Austen\n\nVOLUME I\n\n\tCHAPTER I\n\nShe was.\n\nChapter 2\n\nHe was.\n\nFinis"
    assert [(title, text.split()[-1]) for title, text in chapters(novel)] == [
        ("Chapter i", "was."),
        ("Chapter 2", "was."),
    ]


def test_the_jargon_file_is_cut_by_letter_and_essay() -> None:
    text = (
        "Contents\n   :not: an entry\n\nChapter\u00a01. Slang\n\nWords.\n\nGlossary\n\n   C\n\n"
        "   :(TM): //\n\n   A mark.\n\n   :cat: n.\n\n   An animal.\n\n"
        "Appendix\u00a0A. Folklore\n\nA tale.\n"
    )
    books = parse_jargon(text)
    assert {name: of.documents[0].text for name, of in books.items()} == {
        "c": "   :cat: n.\n\n   An animal.\n",
        "t": "   :(TM): //\n\n   A mark.\n",
        "essays": "Chapter 1. Slang\n\nWords.\n\nAppendix A. Folklore\n\nA tale.\n",
    }


def test_the_devils_dictionary_loses_its_notices() -> None:
    text = "A notice.\n\nPREFACE\n\nIt was begun.\n\nABASEMENT, n.  A decent.\n\nBACCHUS, n.  A deity.\n"
    books = parse_devil(text)
    assert [books[letter].documents[0].text for letter in "ab"] == [
        "ABASEMENT, n.  A decent.\n",
        "BACCHUS, n.  A deity.\n",
    ]


def test_a_page_is_read_as_people_see_it() -> None:
    page = "<head><title>no</title></head><p>One &amp; <b>two</b></p><script>no()</script><li>three</li>"
    assert plain_text(page) == "One & two\nthree\n"
