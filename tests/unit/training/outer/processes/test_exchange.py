"""Members who hear each other: what they accept, whom they put out, and whose state they take."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
import torch

from sharedllm.training.outer import Coding, encode
from sharedllm.training.outer.processes.errors import Broken, CannotGoOn
from sharedllm.training.outer.processes.exchange import Differs, Heard, Held, agree, compare, exchange
from sharedllm.training.outer.processes.group import Group
from sharedllm.training.outer.processes.state import State

Distort = Callable[[int, int, list[bytes]], list[bytes]]  # exchange, who hears, what all gave


@dataclasses.dataclass
class Table:
    """A group in one process: its members are threads; ``distort`` decides what each of them hears."""

    size: int
    distort: Distort = lambda turn, rank, said: said

    def __post_init__(self) -> None:
        self.members = tuple(range(self.size))
        self.barrier = threading.Barrier(self.size, timeout=20)
        self.said: dict[tuple[int, int], Any] = {}


class Seat:
    """One member's side of a ``Table``; has the methods of ``Group``."""

    def __init__(self, table: Table, rank: int) -> None:
        self.table, self.rank, self.members, self.turn = table, rank, table.members, 0

    def _all(self, own: Any) -> list[Any]:
        self.table.said[self.turn, self.rank] = own
        self.table.barrier.wait()
        return [self.table.said[self.turn, rank] for rank in self.members]

    def gather(self, data: bytes) -> list[bytes]:
        said = self.table.distort(self.turn, self.rank, self._all(data))
        self.turn += 1
        return said

    def broadcast(self, tensor: torch.Tensor, source: int) -> None:
        given = self._all(tensor.clone())[source]
        self.turn += 1
        tensor.copy_(given)


def together(table: Table, do: Callable[[Group, int], Any]) -> list[Any]:
    """Let every member ``do`` at once; an exception is a result too."""

    def one(rank: int) -> Any:
        try:
            return do(cast(Group, Seat(table, rank)), rank)
        except (Broken, CannotGoOn, Differs) as error:
            return error

    with ThreadPoolExecutor(table.size) as pool:
        return list(pool.map(one, table.members))


def state(round_: int = 0, value: float = 0.0) -> State:
    return State(round_, torch.full((6,), value), torch.zeros(6))


def round_of(table: Table, states: Sequence[State] | None = None, damage: int | None = None) -> list[Any]:
    """One round in which member i's update is all i + 1; ``damage`` writes NaN over one of them."""

    def do(group: Group, rank: int) -> Heard:
        message = encode(torch.full((6,), rank + 1.0), Coding("fp32"))
        if rank == damage:
            message = message[:16] + b"\xff" * 24
        own = state() if states is None else states[rank]
        return exchange(group, own, message, float(rank), somebody_waits=rank == 1)

    return together(table, do)


def test_everybody_hears_every_update_in_the_order_of_ranks() -> None:
    for heard in round_of(Table(3)):
        assert heard.updates_KP[:, 0].tolist() == [1.0, 2.0, 3.0]


def test_the_loss_told_is_the_median() -> None:
    assert [heard.loss_nats for heard in round_of(Table(3))] == [1.0] * 3


def test_one_who_saw_somebody_wait_tells_all() -> None:
    assert [heard.somebody_waits for heard in round_of(Table(3))] == [True] * 3


def test_all_draw_the_same_coin() -> None:
    assert len({heard.coin for heard in round_of(Table(3))}) == 1


def test_an_update_of_no_numbers_is_unusable_and_nothing_else_is() -> None:
    for heard in round_of(Table(3), damage=2):
        assert (list(heard.unusable), math.isnan(heard.updates_KP[2, 0])) == ([2], True)


def test_an_update_other_than_announced_is_unusable() -> None:
    def swap(turn: int, rank: int, said: list[bytes]) -> list[bytes]:
        return [said[1], said[1], said[2]] if turn == 1 else said

    for heard in round_of(Table(3, swap)):
        assert list(heard.unusable) == [0]


def test_nobody_takes_a_step_if_one_heard_something_else() -> None:
    def lie_to_the_last(turn: int, rank: int, said: list[bytes]) -> list[bytes]:
        return [said[1], said[1], said[2]] if turn == 1 and rank == 2 else said

    assert [type(result) for result in round_of(Table(3, lie_to_the_last))] == [Broken] * 3


def test_a_state_unlike_the_majoritys_is_found_by_all() -> None:
    results = round_of(Table(3), [state(), state(), state(value=1e-6)])
    assert [result.ranks for result in results] == [[2]] * 3


def test_two_states_without_a_majority_end_the_training() -> None:
    results = round_of(Table(2), [state(), state(value=1e-6)])
    assert [type(result) for result in results] == [CannotGoOn] * 2


def test_states_are_compared_at_the_end() -> None:
    ends = [state(), state(value=1.0), state()]
    results = together(Table(3), lambda group, rank: compare(group, ends[rank]))
    assert [result.ranks for result in results] == [[1]] * 3


def agreed_on(held: list[list[Held]], liars: int, distort: Distort | None = None) -> list[Any]:
    table = Table(len(held)) if distort is None else Table(len(held), distort)
    return together(table, lambda group, rank: agree(group, held[rank], liars, generation=9))


def test_one_who_missed_the_last_step_gets_it_from_those_who_took_it() -> None:
    newer = [Held(state(2, 0.5), 3), Held(state(1), 3)]
    results = agreed_on([newer, newer, [Held(state(1), 3)]], liars=1)
    assert [result.sha256 for result in results] == [state(2, 0.5).sha256] * 3


def test_a_step_that_only_one_took_is_taken_back() -> None:
    newer = [Held(state(2, 0.5), 3), Held(state(1), 3)]
    results = agreed_on([newer, [Held(state(1), 3)], [Held(state(1), 3)]], liars=1)
    assert [result.round for result in results] == [1] * 3


def test_a_sleeper_from_an_older_generation_takes_what_the_others_have() -> None:
    results = agreed_on([[Held(state(7), 2)], [Held(state(5, 1.0), 6)], [Held(state(5, 1.0), 6)]], liars=1)
    assert [result.sha256 for result in results] == [state(5, 1.0).sha256] * 3


def test_a_state_that_was_forged_on_its_way_is_fetched_from_another() -> None:
    served = state(2, 0.5)

    def do(group: Group, rank: int) -> State:
        held = [Held(served if rank else state(1), 3), Held(state(1), 3)]
        if rank == 1:  # it vouches for the right hash and serves something else
            wrong = State(2, torch.full((6,), 9.0), torch.zeros(6))
            wrong.__dict__["sha256"] = served.sha256
            held = [Held(wrong, 3), Held(state(1), 3)]
        return agree(group, held, 1, generation=9)

    assert torch.equal(together(Table(3), do)[0].weights_P, served.weights_P)


def test_nothing_that_enough_vouch_for_ends_the_training() -> None:
    results = agreed_on([[Held(state(1, float(rank)), 3)] for rank in range(3)], liars=1)
    assert [type(result) for result in results] == [CannotGoOn] * 3


@pytest.mark.parametrize(
    "nonsense", [b"", b"[[1]]", b'{"a": 1}', b"[[1, 2, 3], null]", b"\xff" * 8, b"[" * 400]
)
def test_a_claim_that_makes_no_sense_counts_for_nothing(nonsense: bytes) -> None:
    def babble(turn: int, rank: int, said: list[bytes]) -> list[bytes]:
        return [*said[:2], nonsense.ljust(512)] if turn == 0 else said

    results = agreed_on([[Held(state(1), 3)]] * 3, liars=1, distort=babble)
    assert [result.round for result in results] == [1] * 3
