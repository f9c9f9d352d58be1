"""The coordinator's state in one SQL database: SQLite with a write-ahead log by default, any URL on request.

What is committed survives a killed process and a power cut (``synchronous=FULL``). The command line opens the
same file beside a running coordinator, so whatever it may change there (tokens, revocations, pauses) is read
from here each time and never kept in memory.

*Covered*: two processes on one SQLite file (each waits up to 10 s for the other). *Not covered*: two
coordinators on one database; a federation has one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from sharedllm.errors import SharedLLMError

__all__ = [
    "DatabaseRefused",
    "bans",
    "nodes",
    "open_database",
    "pipelines",
    "revocations",
    "speeds",
    "tokens",
]

_WAIT_S = 10

_metadata = MetaData()

nodes = Table(
    "nodes",
    _metadata,
    Column("id", String(32), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("name", String(64), nullable=False),
    Column("joined_s", Float, nullable=False),
    Column("seen_s", Float, nullable=False, default=0.0),
    Column("lease_until_s", Float, nullable=False, default=0.0),
    Column("paused", Boolean, nullable=False, default=False),
    Column("epoch", Integer, nullable=False, default=0),
    Column("report", JSON, nullable=True),
)

tokens = Table(
    "tokens",
    _metadata,
    Column("id", String(16), primary_key=True),
    Column("secret_sha256", String(64), nullable=False),
    Column("uses", Integer, nullable=False),
    Column("expires_s", Float, nullable=False),
)

pipelines = Table(
    "pipelines",
    _metadata,
    Column("id", String(32), primary_key=True),
    Column("primary", String(32), nullable=False, index=True),
    Column("family", String(32), nullable=False, index=True),
    Column("active", Boolean, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("plan", JSON, nullable=False),
    Column("measured", JSON, nullable=False),
)

speeds = Table(
    "speeds",
    _metadata,
    Column("worker", String(32), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("s_per_layer", Float, nullable=False),
    Column("at_s", Float, nullable=False),
)

bans = Table(
    "bans",
    _metadata,
    Column("worker", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("detail", String(500), nullable=False),
    Column("until_s", Float, nullable=False),
    Column("started_s", Float, nullable=False),
    Column("strikes", Integer, nullable=False),
)

revocations = Table(
    "revocations",
    _metadata,
    Column("id", String(32), primary_key=True),
    Column("at_s", Float, nullable=False),
)


class DatabaseRefused(SharedLLMError):
    """The coordinator's database can't be opened, or its URL is not one."""


def open_database(state: Path, url: str | None = None) -> Engine:
    """Open, and create where needed, the database at ``url`` or ``state/coordinator.sqlite3``.

    Raises ``DatabaseRefused``; the sentence never holds the URL's password.
    """
    path = state / "coordinator.sqlite3"
    if url is None:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        target = make_url(url if url is not None else f"sqlite:///{path}")
        engine = create_engine(target, pool_pre_ping=target.get_backend_name() != "sqlite")
    except (ArgumentError, ImportError, SQLAlchemyError) as error:
        raise DatabaseRefused(
            "The database URL was not understood or its driver is not installed; expected one such as "
            "sqlite:////path/to/file or postgresql+psycopg://user@host/name."
        ) from error
    if target.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    try:
        _metadata.create_all(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        raise DatabaseRefused(
            f"The database {target.render_as_string(hide_password=True)} could not be opened "
            f"({type(error).__name__}); check that it exists and may be written to."
        ) from error
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={_WAIT_S * 1000}",
        "journal_mode=WAL",
        "synchronous=FULL",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
