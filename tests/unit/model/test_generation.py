"""A row's text depends on its prompt and its seed, and on nothing else in the batch."""

from __future__ import annotations

import pytest
import torch

from sharedllm.errors import BadModelFile, BadPrompt
from sharedllm.model import Generation, Sampling, Tokenizer, Transformer, generate

PROMPTS = ["the cat", "a", "the dog sat on the mat and", "on", "mat and the", "sat", "the the", "cat dog"]


class Echo:
    """Pieces of text in place of a vocabulary: token n is ``pieces[n]``; enough to steer what is decoded."""

    add_bos, bos = False, None

    def __init__(self, pieces: list[bytes], ends: frozenset[int] = frozenset()) -> None:
        self.pieces, self.ends = pieces, ends

    def prompt(self, text: str) -> list[int]:
        return [0] if text else []

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.pieces[i] for i in ids).decode(errors="replace")


class Script(Transformer):
    """A model that says one token after the other, whatever it is asked: nothing else of it is used."""

    def follow(self, script: list[int]) -> Script:
        self.script = script
        return self

    def logits(self, h_BTD: torch.Tensor, gains_BGD: torch.Tensor | None = None) -> torch.Tensor:
        logits = torch.zeros(*h_BTD.shape[:-1], self.config.vocab_size)
        logits[..., self.script.pop(0)] = 1.0
        return logits


def scripted(
    pieces: list[bytes], dense: Transformer, on_token=None, ends=frozenset(), **sampling
) -> Generation:  # type: ignore[no-untyped-def]
    model = Script(dense.config).follow(list(range(len(pieces))))
    sampling = {"max_tokens": len(pieces)} | sampling
    return generate(model, Echo(pieces, ends), ["x"], Sampling(**sampling), on_token)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sampling", [Sampling(max_tokens=12), Sampling(temperature=1.0, seed=3, max_tokens=12)]
)
def test_a_row_writes_the_same_alone_and_in_a_batch_of_eight(
    model: Transformer, tokenizer: Tokenizer, sampling: Sampling
) -> None:
    together = generate(model, tokenizer, PROMPTS, sampling)
    assert together == [generate(model, tokenizer, [prompt], sampling)[0] for prompt in PROMPTS]


def test_greedy_decoding_with_a_cache_equals_recomputing_everything(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    tokens = tokenizer.prompt("the cat sat")
    written = generate(model, tokenizer, [tokens], Sampling(max_tokens=15))[0].tokens
    with torch.no_grad():
        for n, token in enumerate(written):
            logits = model(torch.tensor([tokens + written[:n]]))[0, -1]
            assert int(logits.argmax()) == token


def test_each_row_may_have_its_own_sampling(dense: Transformer, tokenizer: Tokenizer) -> None:
    samplings = [
        Sampling(max_tokens=3),
        Sampling(temperature=0.9, seed=1, max_tokens=9),
        Sampling(max_tokens=6),
    ]
    together = generate(dense, tokenizer, PROMPTS[:3], samplings)
    alone = [generate(dense, tokenizer, [p], s)[0] for p, s in zip(PROMPTS, samplings, strict=False)]
    assert together == alone


def test_streamed_pieces_add_up_to_the_text(dense: Transformer, tokenizer: Tokenizer) -> None:
    seen: dict[int, list[tuple[int, str]]] = {0: [], 1: []}
    sampling = Sampling(temperature=1.0, max_tokens=30)
    rows = generate(dense, tokenizer, PROMPTS[:2], sampling, lambda row, *what: seen[row].append(what))
    for row, generation in enumerate(rows):
        assert "".join(piece for _, piece in seen[row]) == generation.text
        assert [token for token, _ in seen[row]] == generation.tokens


def test_a_stop_string_is_never_emitted_even_when_spread_over_tokens(dense: Transformer) -> None:
    shown: list[str] = []
    pieces = [b"one ", b"<", b"st", b"op", b"> two"]
    result = scripted(pieces, dense, lambda _row, _token, piece: shown.append(piece), stop=("<stop>",))
    assert (result.text, "".join(shown), result.finish_reason) == ("one ", "one ", "stop")


def test_what_only_looks_like_the_beginning_of_a_stop_string_is_emitted_after_all(dense: Transformer) -> None:
    shown: list[str] = []
    result = scripted(
        [b"a<", b"st", b"ay>", b"<s"],
        dense,
        lambda _row, _token, piece: shown.append(piece),
        stop=("<stop>",),
    )
    assert (result.text, shown, result.finish_reason) == ("a<stay><s", ["a", "", "<stay>", "<s"], "length")


def test_the_earliest_of_several_stop_strings_cuts(dense: Transformer) -> None:
    assert scripted([b"ab", b"cdef", b"!"], dense, stop=("ef", "c")).text == "ab"


def test_a_character_spread_over_tokens_is_emitted_whole(dense: Transformer) -> None:
    emoji = "🙂".encode()
    shown: list[str] = []
    pieces = [b"hi ", *(emoji[i : i + 1] for i in range(4)), b"!"]
    scripted(pieces, dense, lambda _row, _token, piece: shown.append(piece))
    assert shown == ["hi ", "", "", "", "🙂", "!"]


def test_half_a_character_at_the_end_is_not_lost(dense: Transformer) -> None:
    assert scripted([b"hi ", b"\xf0"], dense).text == "hi \ufffd"


def test_bytes_that_never_become_text_do_not_swallow_what_follows(dense: Transformer) -> None:
    assert scripted([b"\xff", b"a", b"\xff", b"b"], dense).text == "\ufffda\ufffdb"


def test_a_token_that_ends_a_reply_ends_the_row_and_is_not_part_of_it(dense: Transformer) -> None:
    result = scripted([b"yes", b"<end>", b"no"], dense, ends=frozenset({1}))
    assert result == Generation("yes", [0], "stop")


def test_text_held_back_for_a_stop_string_comes_out_when_the_model_ends(dense: Transformer) -> None:
    assert scripted([b"yes<st", b"<end>"], dense, ends=frozenset({1}), stop=("<stop>",)).text == "yes<st"


def test_a_row_ends_where_the_context_does(dense: Transformer, tokenizer: Tokenizer) -> None:
    tokenizer_without_end = Tokenizer(tokenizer._json)
    prompt = [5] * 60
    result = generate(dense, tokenizer_without_end, [prompt], Sampling(max_tokens=50))[0]
    assert (len(result.tokens), result.finish_reason) == (64 - 60 + 1, "length")


def test_an_empty_prompt_is_refused_by_its_number(dense: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(BadPrompt, match="Prompt 2 is empty"):
        generate(dense, tokenizer, ["a", ""], Sampling())


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(
    dense: Transformer, tokenizer: Tokenizer
) -> None:
    with pytest.raises(BadPrompt, match=r"has 70 tokens.*context is 64.*at least 6 tokens"):
        generate(dense, tokenizer, [[1] * 70], Sampling())


@pytest.mark.parametrize("token", [-1, 320])
def test_a_token_outside_of_the_vocabulary_is_refused(
    dense: Transformer, tokenizer: Tokenizer, token: int
) -> None:
    with pytest.raises(BadPrompt, match=f"holds token {token}"):
        generate(dense, tokenizer, [[1, token]], Sampling())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_damaged_weight_is_named_instead_of_talking_nonsense(
    dense: Transformer, tokenizer: Tokenizer, value: float, temperature: float
) -> None:
    with torch.no_grad():
        dense.blocks[1].attention.q.weight[3, 3] = value
    with pytest.raises(BadModelFile, match=r"blocks\.1\.attention\.q\.weight holds NaN or infinity"):
        generate(dense, tokenizer, ["a"], Sampling(temperature=temperature))


def test_no_prompts_give_no_generations(dense: Transformer, tokenizer: Tokenizer) -> None:
    assert generate(dense, tokenizer, [], Sampling()) == []


def test_what_a_listener_raises_ends_the_generation(dense: Transformer, tokenizer: Tokenizer) -> None:
    def hang_up(_row: int, _token: int, _piece: str) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        generate(dense, tokenizer, ["a"], Sampling(), hang_up)
