"""Text to token ids and back, such that text from people never turns into a control token by itself.

A tokenizer recognises *markers* (``<|im_end|>`` and its like) only where it is asked to: ``encode(text)``
spells a marker out as ordinary text, ``encode(text, special=True)`` makes it the control token.
``chat_tokens`` renders the model's chat template and keeps what people wrote ordinary, so that a message
can't close its own turn.

*Covered*: markers inside a message or a role; templates run in jinja2's sandbox; ``decode(encode(s)) == s``
for every string whose bytes the vocabulary has. *Not covered*: a template that runs long; bytes that a
vocabulary lacks (``missing_bytes``; SmolLM2 lacks eight that valid text can hold, among them six control
characters): they are left out, as the reference implementation does.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from sharedllm.errors import BadModelFile, BadPrompt
from sharedllm.model.vocabulary import byte_letters, byte_level_splitter

__all__ = ["Tokenizer", "train_tokenizer"]

Message = Mapping[str, str]


class Tokenizer:
    """A vocabulary with its merges, its markers and, for a model that chats, its template.

    ``bos`` and ``eos`` are token ids or None; ``ends`` are all ids that end a reply; ``add_bos`` says that a
    prompt starts with ``bos``. ``sha256`` names exactly this tokenizer, template included. Raises
    ``BadModelFile``.
    """

    def __init__(
        self,
        json_str: str,
        chat_template: str | None = None,
        *,
        bos: int | None = None,
        eos: int | None = None,
        add_bos: bool = False,
        ends: Iterable[int] = (),
    ) -> None:
        if not (chat_template is None or type(chat_template) is str):
            raise BadModelFile(
                "The chat template is not text; the model file is inconsistent, fetch it again."
            )
        self._plain = _parse(json_str)
        if _writable_by_people(self._plain, chat_template or ""):
            json_str = _marked(json_str, chat_template or "")
            self._plain = _parse(json_str)
        self._plain.encode_special_tokens = True
        self.chat_template = chat_template
        self.bos, self.eos, self.add_bos = bos, eos, add_bos and bos is not None
        endings = [*ends] if eos is None else [*ends, eos]
        self.vocab_size: int = self._plain.get_vocab_size(with_added_tokens=True)
        for token in endings if bos is None else [*endings, bos]:
            if type(token) is not int or not 0 <= token < self.vocab_size:
                raise BadModelFile(
                    f"The tokenizer names token {token!r} as a beginning or an end, but its vocabulary has "
                    f"{self.vocab_size} tokens; the model file is inconsistent, fetch it again."
                )
        self.ends = frozenset(endings)
        self._json = json_str

    def to_bytes(self) -> bytes:
        """Write everything ``from_bytes`` needs, the same way every time."""
        whole = {
            "add_bos": self.add_bos,
            "bos": self.bos,
            "chat_template": self.chat_template,
            "ends": sorted(self.ends),
            "eos": self.eos,
            "tokenizer": self._json,
        }
        return json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Tokenizer:
        """Read what ``to_bytes`` wrote. Raises ``BadModelFile``."""
        try:
            whole = json.loads(data)
            json_str, chat_template = whole.pop("tokenizer"), whole.pop("chat_template")
            return cls(json_str, chat_template, **whole)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadModelFile(
                f"A tokenizer file does not have the expected form ({error}); fetch the model again."
            ) from error

    def id_of(self, token: str) -> int | None:
        """Look up the id of exactly this token; None if the vocabulary has no such token."""
        found: int | None = self._plain.token_to_id(token)
        return found

    def begins_with(self) -> int | None:
        """Say which token ``tokenizer.json``'s own post-processor puts before every text; None if none."""
        ids: list[int] = self._plain.encode("", add_special_tokens=True).ids
        return ids[0] if ids else None

    @functools.cached_property
    def _special(self) -> tokenizers.Tokenizer:
        return _parse(self._json)

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of ``to_bytes``."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @functools.cached_property
    def missing_bytes(self) -> frozenset[int]:
        """The bytes that this vocabulary can't spell (0xC0, 0xC1 and 0xF5–0xFF never occur in UTF-8)."""
        vocabulary = self._plain.get_vocab(with_added_tokens=True)
        if "<0x00>" in vocabulary:
            return frozenset(b for b in range(256) if f"<0x{b:02X}>" not in vocabulary)
        return frozenset(b for b, letter in byte_letters().items() if letter not in vocabulary)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Turn ``text`` into token ids; markers in it become control tokens only if ``special``.

        No ``bos`` is added (``prompt`` does that). Raises ``BadPrompt`` for what is not valid Unicode.
        """
        engine = self._special if special else self._plain
        try:
            ids: list[int] = engine.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise BadPrompt(
                "The text holds a lone surrogate (half of a character), so it is not valid Unicode; "
                "decode it from its bytes with errors='replace' first."
            ) from error
        return ids

    def prompt(self, text: str, *, special: bool = False) -> list[int]:
        """``encode``, with ``bos`` before it if the model was trained that way."""
        start = [self.bos] if self.add_bos and self.bos is not None else []
        return start + self.encode(text, special=special)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn token ids into text, markers included; bytes that are not yet UTF-8 become U+FFFD."""
        text: str = self._plain.decode(list(ids), skip_special_tokens=False)
        return text

    def chat(self, messages: Sequence[Message], *, reply: bool = True) -> str:
        """Render a conversation as the model was trained to see it, to read; feed it ``chat_tokens``.

        ``messages`` are ``{"role": …, "content": …}``; ``reply`` ends with the beginning of the model's
        turn. Raises ``BadPrompt`` if there is no template or it refuses the messages.
        """
        if self.chat_template is None:
            raise BadPrompt("This model has no chat template, so it can't chat; give it a plain prompt.")
        if not messages:
            raise BadPrompt("A conversation needs at least one message.")
        for message in messages:
            if set(message) != {"role", "content"} or not all(isinstance(v, str) for v in message.values()):
                raise BadPrompt('Each message is {"role": text, "content": text} and nothing else.')
        names = {"bos_token": self._name(self.bos), "eos_token": self._name(self.eos)}
        return _render(self.chat_template, list(map(dict, messages)), add_generation_prompt=reply, **names)

    def chat_tokens(self, messages: Sequence[Message], *, reply: bool = True) -> list[int]:
        """Encode a conversation: the template's markers are control tokens, those people wrote are text."""
        markers = [re.escape(token.content) for token in self._plain.get_added_tokens_decoder().values()]
        marker = re.compile("|".join(sorted(markers, key=len, reverse=True)) or r"(?!)")
        if not any(marker.search(text) for message in messages for text in message.values()):
            return self.encode(self.chat(messages, reply=reply), special=True)
        # Markers people wrote hide behind a name nobody can guess while the template's own are found.
        nonce = f"\ue000{secrets.token_hex(16)}"
        hidden: list[str] = []

        def hide(found: re.Match[str]) -> str:
            hidden.append(found.group())
            return f"{nonce}{len(hidden) - 1}\ue001"

        safe = [{key: marker.sub(hide, text) for key, text in message.items()} for message in messages]
        ids: list[int] = []
        rendered = self.chat(safe, reply=reply)
        place = re.compile(re.escape(nonce) + "([0-9]+)\ue001")
        at = 0
        for found in [*marker.finditer(rendered), None]:
            text = rendered[at : found.start() if found else None]
            ids += self.encode(place.sub(lambda name: hidden[int(name.group(1))], text))
            if found:
                ids += self.encode(found.group(), special=True)
                at = found.end()
        return ids

    def _name(self, token: int | None) -> str:
        return "" if token is None else str(self._plain.id_to_token(token))


def _parse(json_str: str) -> tokenizers.Tokenizer:
    try:
        engine = tokenizers.Tokenizer.from_str(json_str)
    except Exception as error:  # the library raises bare Exception for every malformed input
        raise BadModelFile(f"The tokenizer can't be read ({error}); fetch the model again.") from error
    # truncation and padding are settings of somebody's training run, and would cut what people write
    engine.no_truncation()
    engine.no_padding()
    return engine


def _writable_by_people(engine: tokenizers.Tokenizer, chat_template: str) -> bool:
    """Say whether a marker of the chat template would be recognised in ordinary text too."""
    added = engine.get_added_tokens_decoder().values()
    return any(not token.special and token.content in chat_template for token in added)


def _marked(json_str: str, chat_template: str) -> str:
    """Declare each added token that the chat template writes special, so that ``encode`` spells it out."""
    whole = json.loads(json_str)
    for token in whole["added_tokens"]:
        token["special"] = token["special"] or token["content"] in chat_template
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False)


def _render(template: str, messages: list[dict[str, str]], **names: Any) -> str:
    """Run a chat template, which a model file brought, where it reaches nothing (jinja2 comes with torch)."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(reason: str) -> None:
        raise jinja2.TemplateError(reason)

    room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    room.globals["raise_exception"] = refuse
    try:
        return room.from_string(template).render(messages=messages, **names)
    except (
        jinja2.TemplateError,
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
        OverflowError,
    ) as error:
        raise BadPrompt(
            f"The model's chat template refuses these messages ({error}); check the roles."
        ) from error


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, special: Sequence[str] = ("<|endoftext|>",)
) -> Tokenizer:
    """Train a byte-level BPE with SmolLM2's pre-tokenizer; it has all 256 bytes, so every text round-trips.

    The first of ``special`` is both beginning and end. A short text may yield fewer than ``vocab_size``
    tokens. Raises ``ValueError`` when ``vocab_size`` can't hold the bytes and the special tokens.
    """
    if vocab_size < 256 + len(special):
        raise ValueError(
            f"A vocabulary of {vocab_size} can't hold 256 bytes and {len(special)} special tokens."
        )
    built = tokenizers.Tokenizer(models.BPE())
    built.pre_tokenizer = byte_level_splitter("smollm")
    built.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
    )
    built.train_from_iterator(texts, trainer)
    return Tokenizer(built.to_str(), bos=0, eos=0)
