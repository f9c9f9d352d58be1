"""Scores are exact log-probabilities, whatever the chunks and windows they were computed in."""

from __future__ import annotations

import pytest
import torch

from sharedllm.errors import BadModelFile, BadPrompt
from sharedllm.model import Transformer, log_probs, score, token_nats
from sharedllm.model import scoring as scoring_module

ROUNDING = 2e-5
TOKENS = torch.randint(320, (3, 30), generator=torch.Generator().manual_seed(4))


@pytest.fixture(autouse=True)
def _tiny_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of four positions at once, so that every test crosses the bounds of chunks."""
    monkeypatch.setattr(scoring_module, "_CHUNK_BYTES", 4 * 4 * 320)


def plain_nats(model: Transformer, tokens_BT: torch.Tensor) -> torch.Tensor:
    logp = torch.log_softmax(model(tokens_BT)[:, :-1], -1)
    return -logp.gather(-1, tokens_BT[:, 1:, None])[..., 0]


def test_token_nats_are_the_negative_log_softmax_of_the_next_token(model: Transformer) -> None:
    torch.testing.assert_close(token_nats(model, TOKENS), plain_nats(model, TOKENS), atol=ROUNDING, rtol=0)


def test_token_nats_behind_a_rows_length_are_zero_and_before_it_unchanged(dense: Transformer) -> None:
    nats = token_nats(dense, TOKENS, torch.tensor([30, 5, 1]))
    whole = token_nats(dense, TOKENS)
    assert torch.equal(nats != 0, torch.arange(1, 30) < torch.tensor([[30], [5], [1]]))
    assert torch.equal(nats[1, :4], whole[1, :4])


def test_token_nats_can_be_learned_from(dense: Transformer) -> None:
    token_nats(dense, TOKENS).mean().backward()
    assert dense.norm.weight.grad is not None


def test_a_document_within_one_window_scores_as_a_whole(dense: Transformer) -> None:
    expected = plain_nats(dense, TOKENS[:1])[0].detach()
    torch.testing.assert_close(score(dense, TOKENS[0].tolist(), 30), expected, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("window", [2, 3, 7, 16, 29])
def test_a_longer_document_scores_each_token_behind_the_context_its_window_has(
    dense: Transformer, window: int
) -> None:
    nats = score(dense, TOKENS[0].tolist(), window)
    for cut in scoring_module.windows(30, window):
        expected = plain_nats(dense, TOKENS[:1, cut.start : cut.stop])[
            0, cut.first - cut.start - 1 :
        ].detach()
        torch.testing.assert_close(nats[cut.first - 1 : cut.stop - 1], expected, atol=ROUNDING, rtol=0)


def test_log_probs_are_normalised_and_agree_with_the_score(model: Transformer) -> None:
    tokens = TOKENS[1].tolist()
    chunks = list(log_probs(model, tokens, 11))
    logp_TV = torch.cat([logp for _, logp in chunks])
    nats = -logp_TV.gather(1, TOKENS[1, 1:, None])[:, 0]
    assert logp_TV.exp().sum(-1).sub(1).abs().max() < ROUNDING
    torch.testing.assert_close(nats, score(model, tokens, 11), atol=ROUNDING, rtol=0)


def test_chunks_of_two_models_line_up(dense: Transformer, moe: Transformer) -> None:
    bounds = [
        [(first, len(logp)) for first, logp in log_probs(m, TOKENS[0].tolist(), 11)] for m in (dense, moe)
    ]
    assert bounds[0] == bounds[1]
    assert [first for first, _ in bounds[0]] == [
        1 + sum(n for _, n in bounds[0][:i]) for i in range(len(bounds[0]))
    ]


def test_scoring_leaves_no_gradient_behind(dense: Transformer) -> None:
    assert not score(dense, TOKENS[0].tolist(), 8).requires_grad
    assert not any(logp.requires_grad for _, logp in log_probs(dense, TOKENS[0].tolist(), 8))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("tokens", [[], [3]])
def test_a_document_with_nothing_to_score_is_refused(dense: Transformer, tokens: list[int]) -> None:
    with pytest.raises(BadPrompt, match=f"{len(tokens)} tokens"):
        score(dense, tokens, 8)


def test_a_window_of_one_token_is_refused(dense: Transformer) -> None:
    with pytest.raises(BadPrompt, match="window of 1"):
        score(dense, [1, 2, 3], 1)


def test_damaged_weights_have_no_score(dense: Transformer) -> None:
    with torch.no_grad():
        dense.norm.weight[0] = float("nan")
    with pytest.raises(BadModelFile, match="damaged"):
        score(dense, [1, 2, 3], 4)
