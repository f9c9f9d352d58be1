"""Whatever is asked of a bank in whatever order, a user's gains are those that were put last, bit for bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.adapters import Bank
from sharedllm.errors import BankFull, UnknownName

BASE_GD = torch.linspace(-1, 2, 6).view(3, 2)
KEYS = st.sampled_from("abcdefg")
MOVES = st.one_of(
    st.tuples(st.just("put"), KEYS, st.floats(-1024, 1024, width=32)),
    st.tuples(st.just("gather"), st.lists(st.one_of(st.none(), KEYS), max_size=5)),
    st.tuples(st.just("row"), KEYS),
    st.tuples(st.just("drop"), KEYS),
)


@settings(deadline=None)
@given(capacity=st.integers(1, 4), moves=st.lists(MOVES, max_size=40))
def test_a_bank_is_a_table_of_what_was_put(capacity: int, moves: list[tuple[object, ...]]) -> None:
    table: dict[object, torch.Tensor] = {}
    with tempfile.TemporaryDirectory() as folder:
        bank = Bank(BASE_GD, capacity, Path(folder))
        for name, asked, *value in moves:
            if name == "put":
                delta_GD = torch.full((3, 2), value[0])  # type: ignore[arg-type]
                bank.put(str(asked), delta_GD)
                table[asked] = BASE_GD + delta_GD
            elif name == "drop":
                bank.drop(str(asked))
                table.pop(asked, None)
            elif name == "row" and asked in table:
                row = torch.tensor([bank.row(str(asked))])
                assert torch.equal(bank.gains(2, row)[0], table[asked][2])
            elif name == "gather":
                _gathered(bank, table, asked)  # type: ignore[arg-type]
            assert bank.users == len(table)
            assert {key for key in "abcdefg" if key in bank} == set(table)


def _gathered(bank: Bank, table: dict[object, torch.Tensor], keys: list[str | None]) -> None:
    users = set(keys) - {None}
    if len(users) > bank.capacity:
        with pytest.raises(BankFull):
            bank.gather(keys)
    elif users - set(table):
        with pytest.raises(UnknownName):
            bank.gather(keys)
    else:
        expected = [BASE_GD if key is None else table[key] for key in keys]
        assert torch.equal(bank.gather(keys), torch.stack(expected) if keys else torch.empty(0, 3, 2))
