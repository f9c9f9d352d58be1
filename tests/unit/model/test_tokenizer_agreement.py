"""SmolLM2's tokenizer agrees with two others: transformers' reading of the GGUF, and BPE in plain Python.

transformers converts the same file with code of its own, but forgets the digit splitter: 5.23 encodes
``"\\n\\n4"`` as ``ĊĊ 4``, where SmolLM2's tokenizer.json and llama.cpp's ``smollm`` split at every digit.
It is put back below. As transformers shares the Rust engine with ours, ``naive``, the paper's algorithm in
plain Python, guards against a fault in that.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable

import pytest
import regex
import transformers
from tokenizers import pre_tokenizers

from sharedllm import store
from sharedllm.model import Tokenizer
from sharedllm.model.vocabulary import byte_letters

N_STRINGS = 10_000  # issue 2
PIECES = [
    *"aeiou tnsr.,'\"!?-_=+*/\\()[]{}<>|@#$%^&~`",
    *"0123456789",
    *(chr(code) for code in range(0x20)),
    *(chr(code) for code in range(0x7F, 0xA1)),
    *"\u200b\u200d\u2028\ufeff\ufffd\u00ad\u3000",
    *"മലയാളംക്ഷൺൻർൽൾ൧൨൩०१२٣۴½²Ⅷ一二漢字かなカナ한글ßİıſ",
    *"🙂👍🏽👩‍👩‍👧‍👦🇮🇳❤️‍🔥𝒜𐍈\U0010ffff\U000e0041",
    *(
        "the ",
        " quick",
        "brown\n",
        "\n\n",
        "    ",
        "\t\t",
        "\r\n",
        "'s",
        "'ll",
        "Don't",
        "HTTP/1.1",
        "e\u0301",
    ),
    *(
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<repo_name>",
        "<|im_",
        "end|>",
        "def f(x):",
        "https://",
    ),
]
GPT2 = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
Encode = Callable[[str], list[int]]


def strings() -> list[str]:
    """10,000 strings of 0 to 60 pieces, and at the end a few of 100 kB."""
    chance = random.Random(0)
    short = ["".join(chance.choices(PIECES, k=chance.randrange(60))) for _ in range(N_STRINGS - 4)]
    return [*short, "a" * 100_000, "മല " * 14_000, " \n" * 50_000, "".join(chance.choices(PIECES, k=40_000))]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return store.load("smollm2-135m").tokenizer


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> transformers.PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("gguf")
    sha256 = store.resolve("smollm2-135m").provenance["gguf_sha256"]
    (folder / "model.gguf").symlink_to(store.Blobs().path(sha256))
    loaded = transformers.AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    engine = loaded.backend_tokenizer
    engine.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), engine.pre_tokenizer])
    return loaded


@pytest.fixture(scope="module")
def naive(tokenizer: Tokenizer) -> Encode:
    """Encode as Sennrich et al. 2016 say: merge the earliest-learnt pair until none is left."""
    model = json.loads(json.loads(tokenizer.to_bytes())["tokenizer"])["model"]
    ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
    letters = byte_letters()

    def merged(word: str) -> list[int]:
        parts = [letters[byte] for byte in word.encode() if letters[byte] in model["vocab"]]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            at, joined = 0, []
            while at < len(parts):
                both = tuple(parts[at : at + 2]) == best
                joined.append("".join(best) if both else parts[at])
                at += 2 if both else 1
            parts = joined
        return [model["vocab"][part] for part in parts]

    def encode(text: str) -> list[int]:
        words = [word for part in regex.split(r"(\p{N})", text) for word in GPT2.findall(part)]
        return [token for word in words for token in merged(word)]

    return encode


@pytest.mark.slow
def test_it_agrees_with_transformers_on_ten_thousand_strings(
    tokenizer: Tokenizer, theirs: transformers.PreTrainedTokenizerBase
) -> None:
    texts = strings()
    assert len(texts) == N_STRINGS
    differing = [t for t in texts if tokenizer.encode(t, special=True) != theirs.encode(t)]
    assert differing == []


@pytest.mark.slow
def test_it_agrees_with_plain_python_where_markers_are_text(tokenizer: Tokenizer, naive: Encode) -> None:
    differing = [t for t in strings()[:-4] if tokenizer.encode(t) != naive(t)]
    assert differing == []


@pytest.mark.slow
def test_every_string_that_its_vocabulary_can_spell_comes_back(tokenizer: Tokenizer) -> None:
    texts = [t for t in strings() if tokenizer.missing_bytes.isdisjoint(t.encode())]
    assert len(texts) > N_STRINGS / 10
    assert [t for t in texts if tokenizer.decode(tokenizer.encode(t)) != t] == []


@pytest.mark.slow
def test_the_bytes_that_it_lacks_are_the_known_ones(tokenizer: Tokenizer) -> None:
    never_in_utf8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
    control, planes_4_to_11 = {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D}, {0xF1, 0xF2}
    assert tokenizer.missing_bytes == never_in_utf8 | control | planes_4_to_11


@pytest.mark.slow
def test_its_conversations_agree_with_transformers(
    tokenizer: Tokenizer, theirs: transformers.PreTrainedTokenizerBase
) -> None:
    theirs.chat_template = tokenizer.chat_template
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  Name\n\nthree rivers. "},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "മലയാളം 🙂"},
    ]
    for n in range(1, len(messages) + 1):
        expected = theirs.apply_chat_template(messages[:n], add_generation_prompt=True, return_dict=False)
        assert tokenizer.chat_tokens(messages[:n]) == expected
