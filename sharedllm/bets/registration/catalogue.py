"""Where the catalogue is, and which bets are in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sharedllm.bets.registration.bet import Bet
from sharedllm.bets.registration.document import load_bet
from sharedllm.errors import UnknownName

__all__ = ["Catalogue", "find_catalogue"]


@dataclass(frozen=True)
class Catalogue:
    """The folder ``catalogue/`` of a checkout, with its ledger and its bets."""

    root: Path

    @property
    def repository(self) -> Path:
        return self.root.parent

    @property
    def ledger(self) -> Path:
        return self.root / "LEDGER.jsonl"

    @property
    def runs(self) -> Path:
        return self.repository / "build" / "runs"

    def folders(self) -> list[Path]:
        """List every bet's folder, in the order of the ids."""
        return sorted((path.parent for path in self.root.glob("*/b[0-9]*/bet.toml")), key=lambda f: f.name)

    def bets(self) -> Iterator[Bet]:
        """Read every bet; raises ``BadBet`` at the first that is malformed."""
        for folder in self.folders():
            yield load_bet(folder)

    def bet(self, name: str) -> Bet:
        """Read one bet by id (``b018``) or folder name; raises ``UnknownName`` with the ids there are."""
        folders = {folder.name: folder for folder in self.folders()}
        ids = {name.split("-")[0]: folder for name, folder in folders.items()}
        folder = ids.get(name.lower()) or folders.get(name)
        if folder is None:
            close = difflib.get_close_matches(name, [*ids, *folders], n=1, cutoff=0.5)
            guess = f" Did you mean {close[0]}?" if close else ""
            raise UnknownName(f"There is no bet {name!r}.{guess} Known: {', '.join(ids) or 'none yet'}.")
        return load_bet(folder)


def find_catalogue(start: Path | None = None) -> Catalogue:
    """Find ``catalogue/`` in ``start`` (default: where we are) or above it; raises ``UnknownName``."""
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / "catalogue" / "schema").is_dir():
            return Catalogue(folder / "catalogue")
    raise UnknownName(
        f"No catalogue/ in {here} or above it. Change into a checkout of SharedLLM, or name one with "
        "--catalogue."
    )
