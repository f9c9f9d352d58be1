"""Whatever f liars claim, a generation goes on from a state that an honest worker holds."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from sharedllm.training.outer.processes.vouching import Claim, agreed, outvoted

NAMES = [f"{letter}" * 4 for letter in "abcdef"]
FREE = st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from(NAMES))


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[Claim], list[Claim], int, int]:
    """Claims of honest members that are at most a step apart, claims of f liars, f, and how many members."""
    liars = draw(st.integers(0, 2))
    honest = draw(st.integers(liars + 1, 5))
    generation, round_ = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    ahead = draw(st.lists(st.booleans(), min_size=honest, max_size=honest))
    true = []
    for member, newer in enumerate(ahead):
        true.append(Claim(member, generation, round_, "same"))
        if newer:
            true.append(Claim(member, generation, round_ + 1, "next"))
    false = [
        Claim(honest + liar, *claim) for liar in range(liars) for claim in draw(st.lists(FREE, max_size=4))
    ]
    return true, false, liars, honest + liars


@given(crowds())
def test_liars_bring_up_no_state_that_no_honest_worker_holds(
    crowd: tuple[list[Claim], list[Claim], int, int],
) -> None:
    true, false, liars, members = crowd
    chosen = agreed(true + false, liars, members)
    assert chosen is not None
    assert (chosen.round, chosen.sha256) in {(claim.round, claim.sha256) for claim in true}


@given(crowds())
def test_nothing_older_is_chosen_than_what_all_honest_workers_hold(
    crowd: tuple[list[Claim], list[Claim], int, int],
) -> None:
    true, false, liars, members = crowd
    chosen = agreed(true + false, liars, members)
    common = min(claim.round for claim in true)
    assert chosen is not None
    assert chosen.round >= common


@given(crowds(), st.randoms())
def test_the_order_in_which_claims_are_heard_changes_nothing(
    crowd: tuple[list[Claim], list[Claim], int, int], chance: st.DataObject
) -> None:
    true, false, liars, members = crowd
    shuffled = true + false
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert agreed(shuffled, liars, members) == agreed(true + false, liars, members)


@given(crowds())
def test_sleepers_from_an_older_generation_never_win(
    crowd: tuple[list[Claim], list[Claim], int, int],
) -> None:
    true, false, liars, members = crowd
    assume(true[0].generation > 0)
    sleepers = [Claim(members + i, true[0].generation - 1, 99, "old!") for i in range(members)]
    chosen = agreed(true + false + sleepers, liars, members + len(sleepers))
    assert chosen is not None
    assert chosen.sha256 != "old!"


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=9))
def test_who_is_outvoted_is_never_half_of_all(hashes: list[str]) -> None:
    ranks = outvoted(hashes)
    assume(ranks is not None)
    assert ranks is not None
    assert 2 * len(ranks) < len(hashes)
