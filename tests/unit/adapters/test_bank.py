"""A bank gives every user's gains back bit for bit, from memory or from disk, whoever else is in it."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sharedllm.adapters import Adapter, Bank, applied, base_gains, delta_gains
from sharedllm.errors import BadAdapter, BankFull, UnknownName, WriteFailed
from sharedllm.model import Config, Sampling, Transformer, generate

BASE_GD = torch.linspace(-1, 2, 3 * 5).view(3, 5)
CONFIG = Config(vocab_size=30, width=24, layers=3, heads=3, kv_heads=1, head_width=8, hidden=40, context=64)


def delta(user: int) -> Tensor:
    return torch.randn(3, 5, generator=torch.Generator().manual_seed(user))


def bank(capacity: int, users: int, folder: Path | None = None) -> Bank:
    made = Bank(BASE_GD, capacity, folder)
    for user in range(users):
        made.put(str(user), delta(user))
    return made


def holds(made: Bank, user: int) -> bool:
    return torch.equal(made.gather([str(user)])[0], BASE_GD + delta(user))


def test_row_zero_is_the_base() -> None:
    made = bank(2, 2)
    assert made.row(None) == 0
    assert torch.equal(made.gather([None])[0], BASE_GD)


def test_one_norm_of_many_rows_is_one_gather() -> None:
    made = bank(4, 4)
    rows_R = torch.tensor([made.row("2"), made.row(None), made.row("2"), made.row("0")])
    expected = torch.stack([BASE_GD[1] + d[1] for d in (delta(2), torch.zeros(3, 5), delta(2), delta(0))])
    assert torch.equal(made.gains(1, rows_R), expected)


def test_users_beyond_the_rows_come_back_bit_for_bit(tmp_path: Path) -> None:
    made = bank(3, 20, tmp_path)
    assert all(holds(made, user) for user in [*range(20), *range(19, -1, -1), 7, 3, 7])
    assert made.users == 20


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    made = bank(3, 3, tmp_path)
    kept = made.row("0")
    made.put("3", delta(3))
    assert (made.row("0"), made.row("2"), made.row("3")) == (kept, 3, 2)


def test_a_user_who_did_not_change_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bank(1, 2, tmp_path)
    made.row("0")
    monkeypatch.setattr(os, "pwritev", None)
    assert holds(made, 1)
    assert holds(made, 0)


def test_what_is_put_anew_takes_the_place_of_what_is_on_disk(tmp_path: Path) -> None:
    made = bank(1, 3, tmp_path)
    made.put("0", delta(7))
    made.row("1")
    assert torch.equal(made.gather(["0"])[0], BASE_GD + delta(7))


def test_who_was_dropped_is_unknown_and_leaves_a_row_and_a_record(tmp_path: Path) -> None:
    made = bank(2, 3, tmp_path)
    for user in ("0", "2"):
        made.drop(user)
        assert user not in made
        with pytest.raises(UnknownName, match=f"Nobody put gains for '{user}'"):
            made.row(user)
    made.put("4", delta(4))
    assert made.users == 2
    assert holds(made, 1)
    assert holds(made, 4)


def test_a_bank_without_a_folder_is_full_at_its_last_row() -> None:
    made = bank(2, 2)
    with pytest.raises(BankFull, match="2 users are in this bank and there is no folder"):
        made.put("2", delta(2))
    assert holds(made, 0)
    assert holds(made, 1)


def test_a_batch_of_more_users_than_rows_is_refused(tmp_path: Path) -> None:
    made = bank(2, 3, tmp_path)
    with pytest.raises(BankFull, match="batch of 3 users was asked for; this bank has 2 rows"):
        made.gather(["0", "1", "2", None, "0"])


def test_a_batch_stays_as_it_was_gathered(tmp_path: Path) -> None:
    made = bank(2, 3, tmp_path)
    gathered = made.gather(["0", "1"])
    made.put("0", delta(9))
    made.row("2")
    assert torch.equal(gathered, torch.stack([BASE_GD + delta(0), BASE_GD + delta(1)]))


@pytest.mark.parametrize(
    ("bad_GD", "sentence"),
    [
        (torch.zeros(3, 4), r"shape \(3, 4\) were put where \(3, 5\) belong"),
        (torch.full((3, 5), torch.nan), "NaN or infinity"),
        (torch.full((3, 5), -torch.inf), "NaN or infinity"),
    ],
)
def test_gains_that_do_not_fit_are_refused_and_nothing_changes(bad_GD: Tensor, sentence: str) -> None:
    made = bank(2, 1)
    with pytest.raises(BadAdapter, match=sentence):
        made.put("0", bad_GD)
    assert holds(made, 0)


def test_a_bank_for_nobody_is_refused() -> None:
    with pytest.raises(BankFull, match="room for 0 users"):
        Bank(BASE_GD, 0)


def test_a_disk_that_is_full_costs_nobody_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bank(2, 2, tmp_path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(WriteFailed, match=r"took no more users of this bank \(No space left"):
        made.put("2", delta(2))
    assert made.users == 2
    assert holds(made, 0)
    assert holds(made, 1)


def test_a_record_that_can_not_be_read_costs_nobody_else_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bank(2, 3, tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(os, "preadv", lambda *_: 0)
        with pytest.raises(WriteFailed, match=r"does not give a user of this bank back \(Input/output"):
            made.row("0")
    assert all(holds(made, user) for user in (1, 2, 0))


def test_a_write_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda f, parts, at: whole(f, [parts[0][:7]], at))
    made = bank(1, 3, tmp_path)
    assert all(holds(made, user) for user in range(3))


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed, match="can be made in"):
        Bank(BASE_GD, 1, tmp_path / "file")


def test_nothing_of_a_bank_can_be_found_in_its_folder(tmp_path: Path) -> None:
    made = bank(1, 9, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert made.users == 9


def test_a_bank_that_is_let_go_closes_its_file(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 it is no folder of files
    made = bank(1, 3, tmp_path)
    del made
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_threads_that_share_a_bank_get_their_own_users(tmp_path: Path) -> None:
    made, wrong = bank(4, 12, tmp_path), []

    def ask(first: int) -> None:
        for turn in range(60):
            users = [(first + turn * step) % 12 for step in (1, 5)]
            gathered = made.gather([str(user) for user in users])
            if not torch.equal(gathered, torch.stack([BASE_GD + delta(user) for user in users])):
                wrong.append(users)
            made.put(str(users[0]), delta(users[0]))

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_hundred_thousand_rows_take_memory_as_they_are_used() -> None:
    made = Bank(torch.ones(9, 256), 100_000)
    assert made.nbytes == 100_001 * 2304 * 4
    made.put("me", torch.zeros(9, 256))
    assert made.row("me") == 1


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(3)
    made = Transformer(CONFIG).eval().requires_grad_(False)
    for gain in made.gains().values():
        gain.uniform_(-1, 2)
    return made


class Mute:
    """A tokenizer without words, whose texts never end by themselves."""

    ends: frozenset[int] = frozenset()

    def decode(self, tokens: list[int]) -> str:
        return "." * len(tokens)


def adapter(model: Transformer, seed: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    tensors = {n: torch.randn(g.shape, generator=generator) * 0.3 for n, g in model.gains().items()}
    return Adapter("norm", "ab" * 32, tensors)


def test_every_row_of_a_batch_has_the_bits_of_its_own_adapter_applied(model: Transformer) -> None:
    made = Bank(base_gains(model), 3)
    for user in range(3):
        made.put(str(user), delta_gains(model, adapter(model, user)))
    keys = ["1", None, "0", "2", "1"]
    tokens_BT = torch.randint(0, 30, (5, 7), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        mixed = model(tokens_BT, gains_BGD=made.gather(keys))
        assert torch.equal(mixed[1], model(tokens_BT)[1])
        for row, key in enumerate(keys):
            if key is not None:
                with applied(model, adapter(model, int(key))) as adapted:
                    assert torch.equal(mixed[row], adapted(tokens_BT)[row])


def test_every_user_in_a_batch_gets_the_text_of_its_own_adapter(model: Transformer) -> None:
    made = Bank(base_gains(model), 3)
    for user in range(3):
        made.put(str(user), delta_gains(model, adapter(model, user)))
    prompts, rows = [[1, 2, 3], [4, 5], [6], [7, 8, 9, 10]], [Sampling(max_tokens=n) for n in (12, 3, 9, 6)]
    keys = ["2", "0", None, "1"]
    together = generate(model, Mute(), prompts, rows, gains_BGD=made.gather(keys))  # type: ignore[arg-type]
    for row, key in enumerate(keys):
        with contextlib.ExitStack() as worn:
            if key is not None:
                worn.enter_context(applied(model, adapter(model, int(key))))
            alone = generate(model, Mute(), [prompts[row]], rows[row])  # type: ignore[arg-type]
        assert together[row].tokens == alone[0].tokens


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (Adapter("lora", "ab" * 32, {}), "norm adapters alone, and this one is lora"),
        (Adapter("norm", "ab" * 32, {}), "has 0 tensors and this model takes 7"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(model: Transformer, changed: Adapter, sentence: str) -> None:
    with pytest.raises(BadAdapter, match=sentence):
        delta_gains(model, changed)


def test_an_adapter_of_another_width_is_refused(model: Transformer) -> None:
    narrow = adapter(model, 1)
    narrow.tensors["norm.weight"] = torch.zeros(23)
    with pytest.raises(BadAdapter, match=r"norm.weight by a tensor of shape \(23,\)"):
        delta_gains(model, narrow)
