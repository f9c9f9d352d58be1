"""The primary as the API sees it: requests in, streams out, and a picture of how it is doing."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Sequence as Tokens
from typing import Any

from sharedllm.errors import BadPrompt
from sharedllm.model import Tokenizer
from sharedllm.nodes.api.service import Ask, Served
from sharedllm.nodes.errors import Busy, NoPipeline
from sharedllm.nodes.primary.audit import AuditHead, Auditor, Tape
from sharedllm.nodes.primary.federated.explaining import Explaining
from sharedllm.nodes.primary.federated.mixed import RULE, Mixed
from sharedllm.nodes.primary.federated.readiness import Readiness
from sharedllm.nodes.primary.federated.repertoire import Part, Repertoire
from sharedllm.nodes.primary.loop import Loop
from sharedllm.nodes.primary.picture import picture
from sharedllm.nodes.primary.sequence import Sequence, Stream, Telling

__all__ = ["Primary"]

_REQUESTS = 128  # computed or waiting at a time
_RECEIPT_S = 10.0


class Primary:
    """Serves a repertoire through its pipelines; implements ``nodes.api.service.Service``."""

    def __init__(
        self,
        repertoire: Repertoire,
        tokenizer: Tokenizer,
        node: str,
        name: str,
        auditor: Auditor | None = None,
    ) -> None:
        self.repertoire, self.tokenizer, self.node, self.name = repertoire, tokenizer, node, name
        self._auditor = auditor
        self.created = int(time.time())
        self.draining = False
        self._number = 0
        self._numbers = threading.Lock()
        self._explains = threading.Lock()
        self._explaining = Explaining(tokenizer, self._sequences)
        self._readiness = Readiness(lambda loop: self._explaining.proved(Part("", "", loop)))

    @property
    def model(self) -> str:
        """The name of what answers whoever names nothing."""
        return self.repertoire.default

    @property
    def context(self) -> int:
        """Positions that a prompt and its answer may take together."""
        return min(loop.model.ends.config.context for loop in self.repertoire.loops)

    def models(self) -> list[Served]:
        """What may be asked for now, the default first."""
        return self.repertoire.models()

    def served(self, name: str) -> Served | None:
        """What goes by that name, if anything does."""
        return self.repertoire.served(name)

    def submit(self, ask: Ask) -> Stream:
        """Begin to continue a prompt, on an event loop.

        Raises ``Busy``, ``BadPrompt``, ``NoPipeline``, ``UnknownName``.
        """
        if self.draining:
            raise NoPipeline("This primary is shutting down; ask another, or ask again in a minute.")
        parts = self.repertoire.parts(ask.model)
        for loop in {part.loop for part in parts}:
            _refuse_unless_open(loop)
        self._check(ask.prompt, parts)
        sequences = self._sequences(ask, parts)
        if len(parts) == 1:
            loop, sequence = parts[0].loop, sequences[0]
            sequence.stream = stream = Stream(len(ask.prompt), lambda: loop.cancel(sequence))
            sequence.telling.tape = self._tape(ask, parts)
            loop.submit(sequence)
            return stream
        telling = Telling(ask, self.tokenizer)
        loops = [part.loop for part in parts]
        mixed = Mixed(telling, list(zip(loops, sequences, strict=True)))
        telling.stream = stream = Stream(len(ask.prompt), mixed.cancel)
        telling.tape = self._tape(ask, parts)  # last, for nobody would end it if what comes before raised
        mixed.submit()
        return stream

    def state(self) -> dict[str, Any]:
        """The live picture for the page and ``status``: of the default, and of the other pipelines."""
        first = self.repertoire.parts("")[0].loop
        others = [loop for loop in self.repertoire.loops if loop is not first]
        return {
            "model": self.model,
            "node": self.node,
            "name": self.name,
            **picture(first),
            "audit": self._audit(),
            "others": [{"model": loop.model.name, **picture(loop)} for loop in others],
        }

    def explain(
        self, prompt: Tokens[int], token: int, said: Tokens[int] = (), model: str = ""
    ) -> dict[str, Any]:
        """What moved ``token`` after ``prompt`` and what was ``said`` until then. Blocks up to 30 s a pass.

        Raises ``BadPrompt``, ``NoPipeline``, ``UnknownName``.
        """
        parts = self.repertoire.parts(model)
        self._check([*prompt, *said], parts)
        if not 0 <= token < parts[0].loop.model.ends.config.vocab_size:
            raise BadPrompt(f"Token {token} is not in this model's vocabulary.")
        with self._explains:
            return self._explaining.explained(parts, tuple(prompt), token, tuple(said))

    def ready(self) -> tuple[bool, str]:
        """Whether a real token went through every present pipeline, and a sentence; at once.

        Where none has, one is sent meanwhile.
        """
        if self.draining:
            return False, "This primary is shutting down."
        return self._readiness.now(self.repertoire.loops)

    def receipt(self, identifier: str) -> bytes | None:
        """The receipt of an answer that is over, or None if none is known."""
        return self._auditor.receipt(identifier, _RECEIPT_S) if self._auditor is not None else None

    def log(self) -> dict[str, Any] | None:
        """What there is to know of the audit log (``Auditor.log``), if one is kept."""
        return self._auditor.log() if self._auditor is not None else None

    def banish(self, nodes: set[str]) -> None:
        """Leave workers that were revoked, in every pipeline."""
        for loop in self.repertoire.loops:
            loop.banish(nodes)

    def close(self, grace_s: float) -> None:
        """Take no more requests, let those that run finish for ``grace_s``, end the rest with a sentence."""
        self.draining = True
        until_s = time.monotonic() + grace_s
        while any(loop.requests for loop in self.repertoire.loops) and time.monotonic() < until_s:
            time.sleep(0.05)
        for loop in self.repertoire.loops:
            loop.stop("This primary was shut down; what it said so far stands. Ask again in a minute.")

    def _audit(self) -> dict[str, Any] | None:
        """The part of ``log`` that fits in a picture."""
        log = self.log()
        return log and {key: log[key] for key in ("key", "size", "sentence")}

    def _tape(self, ask: Ask, parts: Tokens[Part]) -> Tape | None:
        """What notes the answer for the audit, if a receipt may be asked for."""
        if self._auditor is None or not ask.receipt:
            return None
        names, ids = tuple(part.name for part in parts), tuple(part.id for part in parts)
        model, rule = ask.model or self.model, RULE if len(parts) > 1 else "alone"
        head = AuditHead(ask.receipt, ask.client_key, model, names, ids, rule, ask.prompt)
        return self._auditor.begin(head)

    def _sequences(self, ask: Ask, parts: Tokens[Part]) -> list[Sequence]:
        """One sequence for each part, all of one number."""
        with self._numbers:
            self._number += 1
            number = self._number
        company = collections.Counter(part.loop for part in parts)
        sequences = []
        for part in parts:
            sequence = Sequence(ask, self.tokenizer, self.context, number)
            sequence.worn, sequence.company = part.worn, company[part.loop]
            sequences.append(sequence)
        return sequences

    def _check(self, prompt: Tokens[int], parts: Tokens[Part]) -> None:
        if not prompt:
            raise BadPrompt("The prompt is empty; give at least one token of text to continue.")
        most = self.context
        for loop, company in collections.Counter(part.loop for part in parts).items():
            if loop.batcher.capacity:
                most = min(most, loop.batcher.share(company))
        if len(prompt) > most - 1:
            raise BadPrompt(
                f"The prompt has {len(prompt):,} tokens; the present pipeline takes {most - 1:,} and an "
                "answer. Shorten it."
            )
        vocab_size = min(part.loop.model.ends.config.vocab_size for part in parts)
        outside = [token for token in prompt if not 0 <= token < vocab_size]
        if outside:
            raise BadPrompt(
                f"The prompt holds token {outside[0]}, but this model's vocabulary has {vocab_size:,} tokens."
            )


def _refuse_unless_open(loop: Loop) -> None:
    """Raise ``NoPipeline`` where no pipeline is to be hoped for, ``Busy`` where all places are taken."""
    if loop.ring is None and not loop.hopeful:
        raise NoPipeline(loop.sentence)
    if loop.requests >= _REQUESTS:
        seconds = max(1.0, loop.pace.token_s() * 100)
        raise Busy(f"{_REQUESTS} requests are being answered or wait; try again in {seconds:.0f} s.", seconds)
