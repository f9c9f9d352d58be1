"""What an auditor promises: a receipt for what was served, or a sentence why not, and no waiting."""

from __future__ import annotations

import errno
import os
import textwrap
import threading

import pytest
import torch

from sharedllm.attribution.log import Checkpoint, Log, LogKey
from sharedllm.attribution.receipts import log_name, verify
from sharedllm.errors import BadLog
from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.operations import metrics
from sharedllm.nodes.primary.audit import Tape
from sharedllm.nodes.primary.audit import auditor as auditing
from sharedllm.nodes.primary.audit import tape as tape_module
from tests.processes import Program
from tests.unit.nodes.audit.conftest import head, say

WAIT_S = 30.0


def served(auditor, request_id="r1", tokens=5, **more):
    """Serve an answer and wait for its receipt."""
    tape = auditor.begin(head(request_id, **more))
    say(tape, tokens)
    tape.end("stop")
    return auditor.receipt(request_id, WAIT_S)


def test_an_answer_gets_a_receipt_that_verifies(opened):
    auditor = opened()
    verified = verify(served(auditor), log_key=auditor.log_key, prompt=(1, 2, 3))
    assert [token.entry.token for token in verified.answer.tokens] == [0, 1, 2, 3, 4]
    assert verified.answer.finish_reason == "stop"


def test_one_model_alone_is_all_of_its_answer(opened):
    assert len(verify(served(opened(), specialists=("base",))).answer.tokens) == 5


def test_an_answer_without_tokens_has_a_receipt(opened):
    assert verify(served(opened(), tokens=0)).answer.tokens == ()


def test_numbers_in_fp32_are_made_exact(opened):
    auditor = opened()
    tape = auditor.begin(head("r1"))
    say(tape, 3, torch.float32)
    tape.end("stop")
    assert len(verify(auditor.receipt("r1", WAIT_S)).answer.tokens) == 3


def test_answers_side_by_side_keep_to_themselves(opened):
    auditor = opened()
    tapes = [auditor.begin(head(f"r{i}")) for i in range(6)]
    for tokens, tape in enumerate(tapes):
        say(tape, tokens)
    for tape in tapes:
        tape.end("stop")
    lengths = [len(verify(auditor.receipt(f"r{i}", WAIT_S)).answer.tokens) for i in range(6)]
    assert lengths == [0, 1, 2, 3, 4, 5]


def test_a_token_keeps_no_larger_tensor_alive(opened):
    tape = Tape(head("r1"), lambda: None)
    logp_NV = torch.randn(2, 5000, dtype=torch.float64).log_softmax(-1)
    logw_N = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    tape.token(7, logp_NV[:, 7], logw_N, logp_NV[0, 7])
    held = tape.take()[0]
    assert max(x.untyped_storage().nbytes() for x in held[1:]) <= 16


def test_a_receipt_of_nobody_is_none_at_once(opened):
    assert opened().receipt("unknown", WAIT_S) is None


def test_a_receipt_is_none_at_once_while_the_answer_goes_on(opened):
    auditor = opened()
    auditor.begin(head("r1"))
    assert auditor.receipt("r1", float("inf")) is None


def test_numbers_that_do_not_add_up_cost_the_answer_its_receipt_and_no_other(opened):
    auditor = opened()
    wrong = auditor.begin(head("wrong"))
    wrong.token(1, torch.tensor([-1.0, -2.0]), torch.tensor([0.5, 0.5]).log(), torch.tensor(-9.0))
    wrong.end("stop")
    assert auditor.receipt("wrong", WAIT_S) is None
    assert served(auditor, "right") is not None
    assert "not those of its specialists" in auditor.sentence


def test_shapes_that_differ_cost_the_answer_its_receipt_and_no_other(opened):
    auditor = opened()
    wrong = auditor.begin(head("wrong"))
    say(wrong, 1)
    wrong.token(1, torch.zeros(3), torch.zeros(1), torch.zeros(()))
    wrong.end("stop")
    assert (auditor.receipt("wrong", WAIT_S), auditor.unaudited) == (None, 1)
    assert served(auditor, "right") is not None


def test_a_name_that_no_receipt_can_show_is_not_audited(opened):
    auditor = opened()
    assert served(auditor, "evil\x1b[2J") is None
    assert served(auditor, "right") is not None


def test_unaudited_answers_are_counted(opened):
    auditor, before = opened(), metrics.answers_unaudited._value.get()
    served(auditor, "evil\x1b[2J")
    assert metrics.answers_unaudited._value.get() == before + 1


def test_a_full_disk_costs_receipts_and_nothing_else(opened, monkeypatch):
    auditor = opened()
    kept = served(auditor, "before")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert served(auditor, "during") is None
        assert "No space" in auditor.sentence
    assert verify(served(auditor, "after")).answer.finish_reason == "stop"
    assert verify(auditor.receipt("before", 0)).answer == verify(kept).answer


def test_a_disk_that_hangs_makes_no_token_wait(opened, monkeypatch):
    auditor, hang, reached = opened(), threading.Event(), threading.Event()
    sync = os.fsync

    def hanging(handle):
        reached.set()
        hang.wait(WAIT_S)
        sync(handle)

    monkeypatch.setattr(os, "fsync", hanging)
    tape = auditor.begin(head("r1"))
    assert reached.wait(WAIT_S)
    say(tape, 3000)
    assert tape.lost
    tape.end("stop")
    hang.set()
    assert auditor.receipt("r1", WAIT_S) is None


def test_more_answers_than_there_are_places_are_served_unaudited(opened, monkeypatch):
    monkeypatch.setattr(auditing, "_PLACES", 1)
    auditor = opened()
    first, second = auditor.begin(head("r1")), auditor.begin(head("r2"))
    assert (bool(first.lost), bool(second.lost)) == (False, True)
    assert (auditor.unaudited, auditor.receipt("r2", WAIT_S)) == (1, None)


def test_answers_that_wait_for_the_disk_take_no_place_from_those_that_go_on(opened, monkeypatch):
    monkeypatch.setattr(auditing, "_PLACES", 2)
    auditor, free = opened(), threading.Event()
    monkeypatch.setattr(auditor, "_collect", lambda *_: free.wait(WAIT_S))
    first, second, third = (auditor.begin(head(f"r{i}")) for i in range(3))
    first.end("stop")
    fourth = auditor.begin(head("r3"))
    fourth.end("stop")
    fifth = auditor.begin(head("r4"))
    free.set()
    assert [bool(tape.lost) for tape in (first, second, third, fourth, fifth)] == [0, 0, 1, 0, 1]
    assert "wait for it" in fifth.lost


def test_a_tape_that_its_owner_forgot_gives_its_place_back(opened, monkeypatch):
    monkeypatch.setattr(tape_module, "_SILENT_S", 0.0)
    auditor = opened()
    auditor.begin(head("forgotten"))
    while auditor._open:
        auditor._wake.set()
    assert "for an hour" in auditor.sentence


def test_an_error_of_the_audits_own_costs_the_answers_of_now_alone(opened, monkeypatch):
    auditor = opened()
    with monkeypatch.context() as patch:
        patch.setattr(auditor, "_publish", lambda: 1 / 0)
        patch.setattr(auditor._log, "append", lambda batch: 1 / 0)
        assert served(auditor, "during") is None
    assert served(auditor, "after") is not None
    assert "stumbled" in auditor.sentence


def test_what_is_told_of_the_log_is_what_receipts_are_verified_with(opened):
    auditor = opened()
    receipt, told = served(auditor), auditor.log()
    assert verify(receipt, log_key=told["key"]) == verify(receipt, log_key=told["node_key"])
    checkpoint = Checkpoint.verified(told["checkpoint"].encode(), LogKey.parse(told["key"]))
    assert checkpoint.size == told["size"] > 0


def test_closing_ends_what_was_open_and_keeps_what_it_said(opened, tmp_path):
    auditor = opened()
    say(auditor.begin(head("r1")), 4)
    auditor.close()
    key = NodeKey.load_or_create(tmp_path / "node.key")
    log = Log(tmp_path / "audit", log_name(key.public_bytes), key.private)
    assert b'"finish_reason":"interrupted"' in log.entry(log.size - 1)
    log.close()


def test_a_receipt_outlives_a_restart(opened):
    auditor = opened()
    before = served(auditor, "r1")
    served(auditor, "r2")
    auditor.close()
    again = opened()
    assert verify(again.receipt("r1", WAIT_S)).answer == verify(before).answer


def test_a_tampered_log_is_not_written_on(opened, tmp_path):
    auditor = opened()
    served(auditor, "r1")
    served(auditor, "r2")
    auditor.close()
    journal = tmp_path / "audit" / "journal"
    data = bytearray(journal.read_bytes())
    data[200] ^= 1
    journal.write_bytes(data)
    with pytest.raises(BadLog, match="damaged"):
        opened()


def test_two_auditors_do_not_share_a_log(opened):
    opened()
    with pytest.raises(BadLog, match="Another process"):
        opened()


def test_a_killed_process_leaves_what_it_had_said(opened, tmp_path):
    script = """
        import json, os, signal, sys
        from pathlib import Path
        from sharedllm.nodes.identity import NodeKey
        from sharedllm.nodes.primary.audit import Auditor
        from tests.unit.nodes.audit.conftest import head, say
        folder = Path(sys.argv[1])
        key = NodeKey.load_or_create(folder / "node.key")
        auditor = Auditor(folder / "audit", key, collect_s=0.01)
        tape = auditor.begin(head("done"))
        say(tape, 4)
        tape.end("stop")
        assert auditor.receipt("done", 30) is not None
        tape = auditor.begin(head("open"))
        say(tape, 4)
        while sum(len(json.loads(auditor._log.entry(i)).get("rows", ())) for i in tape.positions) < 4:
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended, _, complained = Program(textwrap.dedent(script), tmp_path).wait()
    assert ended == -9, complained
    auditor = opened()
    assert len(verify(auditor.receipt("done", WAIT_S)).answer.tokens) == 4
    interrupted = verify(auditor.receipt("open", WAIT_S))
    assert len(interrupted.answer.tokens) == 4
    assert interrupted.answer.finish_reason is None
