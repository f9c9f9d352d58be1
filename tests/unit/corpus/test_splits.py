"""Splits on the real texts: nothing held out has been trained on, by id, by hash, and by line."""

from __future__ import annotations

import pytest

from sharedllm import corpus
from sharedllm.corpus import Domain, User
from sharedllm.corpus.domains import USER_MODULES
from sharedllm.corpus.programs import library

# Lines this long are rarely shared by chance; measured: at most 1.5 % (imports and docstrings in `code`)
LONG_LINE = 50
MAX_SHARED_LINES = 0.02
ENOUGH_TO_CLUSTER = 8

NAMES = [*corpus.BASE_DOMAINS, *corpus.ALWAYS]


def named(name: str) -> Domain | User:
    return corpus.domain(name) if name in corpus.BASE_DOMAINS else corpus.user(name)


def long_lines(documents: tuple[corpus.Document, ...]) -> list[str]:
    lines = (line.strip() for document in documents for line in document.text.splitlines())
    return [line for line in lines if len(line) >= LONG_LINE]


@pytest.fixture(scope="module")
def base() -> tuple[corpus.Document, ...]:
    return tuple(document for documents in corpus.base_mix().values() for document in documents)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_base_never_trains_on_held_out_documents(name: str, base: tuple[corpus.Document, ...]) -> None:
    held_out = {*named(name).validation, *named(name).test}
    ids, hashes = {d.id for d in base}, {d.sha256 for d in base}
    assert not [d.id for d in held_out if d.id in ids or d.sha256 in hashes]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_base_has_hardly_a_line_of_held_out_text(name: str, base: tuple[corpus.Document, ...]) -> None:
    known = set(long_lines(base))
    lines = long_lines((*named(name).validation, *named(name).test))
    assert sum(line in known for line in lines) / len(lines) <= MAX_SHARED_LINES


@pytest.mark.slow
@pytest.mark.parametrize("name", corpus.ALWAYS)
def test_the_base_never_trains_on_a_users_books(name: str, base: tuple[corpus.Document, ...]) -> None:
    ids = {document.id for document in base}
    assert not [document.id for document in corpus.user(name).train if document.id in ids]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_document_is_in_two_splits(name: str) -> None:
    of = named(name)
    hashes = [document.sha256 for split in corpus.SPLITS for document in getattr(of, split)]
    assert len(hashes) == len(set(hashes))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_book_is_in_two_splits(name: str) -> None:
    of = named(name)
    books = [
        book for split in corpus.SPLITS for book in {d.id.rpartition("/")[0] for d in getattr(of, split)}
    ]
    assert len(books) == len(set(books))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_test_split_has_enough_documents_to_cluster(name: str) -> None:
    assert len(named(name).test) >= ENOUGH_TO_CLUSTER


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_hash_names_the_text(name: str) -> None:
    assert named(name).sha256 == named(name).sha256 != corpus.user("lingl").sha256 or name == "lingl"


def test_the_librarys_user_modules_are_whole_books() -> None:
    assert set(USER_MODULES) <= set(library())
