"""Tokenizers built from their parts: what a GGUF keeps as lists becomes a ``tokenizer.json``.

Source: Sennrich et al. 2016 (BPE), Radford et al. 2019 (byte level), Kudo & Richardson 2018 (SentencePiece);
the names of pre-tokenizers are llama.cpp's. *Not covered*: unigram and WordPiece vocabularies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from sharedllm.errors import BadModelFile

__all__ = ["byte_letters", "byte_level_json", "byte_level_splitter", "sentencepiece_json"]

# Llama 3's pattern, as its tokenizer.json and llama.cpp ("llama-bpe") have it
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_GPT2 = {"gpt-2", "gpt2", "phi-2", "olmo", "jina-v1-en", "roberta-bpe", "mpt"}
_LLAMA_BPE = {"llama-bpe", "llama3", "llama-v3", "falcon3", "smaug-bpe"}


def byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for every byte (Radford et al. 2019, ``bytes_to_unicode``)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(rest)}


def byte_level_splitter(pre: str) -> pre_tokenizers.PreTokenizer:
    """Build the pre-tokenizer that llama.cpp calls ``pre``. Raises ``BadModelFile`` for others."""
    if pre in _DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if pre in _GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre in _LLAMA_BPE:
        split = pre_tokenizers.Split(Regex(_LLAMA3), "isolated")
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([split, last])
    known = ", ".join(sorted(_DIGITS | _GPT2 | _LLAMA_BPE))
    raise BadModelFile(f"The pre-tokenizer {pre!r} is not one that SharedLLM can rebuild ({known}).")


def byte_level_json(
    tokens: Sequence[str], merges: Iterable[str], special: Iterable[int], user: Iterable[int], pre: str
) -> str:
    """Build the ``tokenizer.json`` of a byte-level BPE from its parts.

    ``merges`` are pairs with a space between; ``special`` and ``user`` are ids of control and of
    user-defined tokens; ``pre`` names the pre-tokenizer as llama.cpp does. Raises ``BadModelFile``.
    """
    splitter = byte_level_splitter(pre)
    pairs = [_pair(merge) for merge in merges]
    vocabulary = _vocabulary(tokens)
    try:
        built = tokenizers.Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=pre in _LLAMA_BPE))
    except Exception as error:  # the library raises bare Exception for a merge outside the vocabulary
        raise BadModelFile(f"The tokenizer's merges don't fit its vocabulary ({error}).") from error
    built.pre_tokenizer = splitter
    built.decoder = decoders.ByteLevel()
    return _with_added(built, tokens, special, user)


def sentencepiece_json(
    tokens: Sequence[str], scores: Sequence[float], special: Iterable[int], user: Iterable[int]
) -> str:
    """Build the ``tokenizer.json`` of a SentencePiece BPE with byte fallback (Llama 1 and 2, Mistral).

    SentencePiece keeps no merges: a pair may merge if the result is a token, and the better score goes
    first.
    """
    vocabulary = _vocabulary(tokens)
    merges = []
    for token, rank in vocabulary.items():
        for cut in range(1, len(token)):
            left, right = vocabulary.get(token[:cut]), vocabulary.get(token[cut:])
            if left is not None and right is not None:
                merges.append((-scores[rank], left, right, token[:cut], token[cut:]))
    pairs = [(left, right) for *_, left, right in sorted(merges)]
    built = tokenizers.Tokenizer(models.BPE(vocabulary, pairs, fuse_unk=True, byte_fallback=True))
    built.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    built.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _with_added(built, tokens, special, user)


def _pair(merge: str) -> tuple[str, str]:
    left, space, right = str(merge).partition(" ")
    if not (left and space and right) or " " in right:
        raise BadModelFile(
            f"The tokenizer has {merge!r} as a merge, but a merge is two pieces with a space between."
        )
    return left, right


def _vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    vocabulary = {token: n for n, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise BadModelFile(
            "The tokenizer lists a token twice, so ids would be ambiguous; fetch the model again."
        )
    return vocabulary


def _with_added(
    built: tokenizers.Tokenizer, tokens: Sequence[str], special: Iterable[int], user: Iterable[int]
) -> str:
    built.add_special_tokens([AddedToken(tokens[n], special=True, normalized=False) for n in special])
    built.add_tokens([AddedToken(tokens[n], normalized=False) for n in user])
    text: str = built.to_str()
    return text
