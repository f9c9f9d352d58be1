"""Real notebooks under the real runner: every fault is injected for real, and each is one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from sharedllm.bets import read_result
from sharedllm.bets.check import check
from sharedllm.bets.decide import decide
from sharedllm.bets.runner import read_notebook, recorded
from sharedllm.errors import BadBet, RunFailed

pytestmark = pytest.mark.slow

METRICS = 'metrics = {"difference_nats": -0.2, "control_difference_nats": 0.2}\n'
PATIENCE_S = 20.0


def interrupted(lab: Any) -> Path:
    return Path(lab.catalogue.runs / "b118" / "toy-full-interrupted")


def fails(lab: Any, measure: str, sentence: str, **more: Any) -> None:
    """Run a notebook that can't end well; its folder is kept, nothing half-written is left beside it."""
    lab.set_cells(measure)
    with pytest.raises(RunFailed, match=sentence) as caught:
        lab.run(**more)
    assert str(interrupted(lab)) in str(caught.value)
    assert read_result(interrupted(lab) / "result.json").fate == "interrupted"
    assert [path.name for path in interrupted(lab).parent.iterdir()] == ["toy-full-interrupted"]


def gone(pid: int) -> bool:
    """Wait for a process that is being killed."""
    try:
        psutil.Process(pid).wait(PATIENCE_S)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def test_a_bet_goes_from_registration_to_a_sound_decision(lab: Any) -> None:
    lab.register()
    events: list[Mapping[str, Any]] = []
    result = lab.run(on_event=events.append)
    assert (result.fate, result.verdict) == ("canonical", "STRICT PASS")
    assert [event["cell"] for event in events if event["event"] == "cell"] == [1, 2, 3, 4]
    assert any(str(event.get("line")).startswith("seeds: 3 of 3") for event in events)
    assert result.timing.checkpoints_computed == 3
    assert result.timing.peak_rss_bytes > 10_000_000
    assert len(result.series) == 1
    assert decide(lab.catalogue, lab.bet, "toy").event == "decided"
    lab.commit("Decide b118")
    assert check(lab.catalogue) == []


def test_an_executed_notebook_names_no_folder_of_this_machine(lab: Any) -> None:
    lab.set_cells(METRICS + "import os\nprint(os.getcwd(), os.environ['SHAREDLLM_HOME'])")
    lab.run()
    text = (lab.catalogue.runs / "b118" / "toy-full" / "executed.ipynb").read_text()
    assert str(lab.root) not in text
    assert str(Path.home()) not in text
    assert "<run> <store>" in text


def test_a_notebook_gets_parameters_and_no_secrets(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "secret")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere.py")
    lab.set_cells(
        "import os\n"
        'assert not {"API_TOKEN", "PYTHONSTARTUP"} & set(os.environ)\n'
        'assert (regime, tier, tokens) == ("toy", "smoke", 10), (regime, tier, tokens)\n' + METRICS
    )
    assert lab.run(tier="smoke").fate == "exploratory"


def test_a_second_run_resumes_from_checkpoints(lab: Any) -> None:
    assert [lab.run().timing.checkpoints_reused for _ in range(2)] == [0, 3]


def test_a_crash_names_the_cell_and_the_error_and_keeps_the_notebook(lab: Any) -> None:
    fails(
        lab,
        "weights = {}\nweights['gain']",
        r"(?s)crashed in cell 3 of 4: KeyError: 'gain'.*weights\['gain'\]",
    )
    kinds = [
        o["output_type"]
        for c in read_notebook(interrupted(lab) / "executed.ipynb")["cells"]
        for o in c.get("outputs", [])
    ]
    assert kinds == ["error"]


def test_an_interrupted_run_leaves_an_earlier_good_one_alone(lab: Any) -> None:
    lab.set_cells(METRICS)
    lab.run()
    lab.set_cells("1 / 0")
    with pytest.raises(RunFailed, match="ZeroDivisionError"):
        lab.run()
    assert read_result(lab.catalogue.runs / "b118" / "toy-full" / "result.json").fate == "exploratory"


def test_a_notebook_that_never_ends_is_ended_with_all_its_processes(lab: Any) -> None:
    lab.edit_toml("limit_s = 600", "limit_s = 40")
    measure = (
        "import os, signal, subprocess\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        'other = subprocess.Popen(["sleep", "600"], start_new_session=True)\n'
        'print("kept")\n'
        f'open({str(lab.root / "pids")!r}, "w").write(f"{{os.getpid()}} {{other.pid}}")\n'
        "while True: pass"
    )
    fails(lab, measure, r"reached its limit of 40 s in cell 3 of 4")
    pids = [int(pid) for pid in (lab.root / "pids").read_text().split()]
    assert all(gone(pid) for pid in pids)
    assert "kept" in (interrupted(lab) / "executed.ipynb").read_text()


@pytest.mark.parametrize(
    "measure",
    [
        'while True: print("x" * 10_000)',
        'print("x" * 100_000_000)',
        'from IPython.display import display\nwhile True: display("x" * 10_000)',
        'import os\nwhile True: os.write(1, b"x" * 10_000)',
        'import sys\nwhile True:\n    try: sys.stderr.write("x" * 1000)\n    except BaseException: pass',
    ],
    ids=["endless", "at once", "displays", "below Python", "catches everything"],
)
def test_a_notebook_that_prints_without_end_is_ended(lab: Any, measure: str) -> None:
    fails(lab, measure, "printed more than 1,000,000 bytes", output_limit_bytes=1_000_000)
    kept = sum(path.stat().st_size for path in interrupted(lab).iterdir())
    assert kept < 3_000_000


def test_a_notebook_that_takes_too_much_memory_is_ended(lab: Any) -> None:
    lab.edit_toml("limit_s = 600", "limit_s = 600\nmemory_limit_bytes = 600_000_000")
    fails(
        lab,
        "import time\nhoard = bytearray(800_000_000)\ntime.sleep(600)",
        "more than its 600,000,000 bytes of memory",
    )


def test_a_kernel_that_dies_is_said_to_have_died(lab: Any) -> None:
    fails(lab, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "process died in cell 3 of 4")


def test_a_notebook_that_forgets_to_record_is_no_result(lab: Any) -> None:
    lab.set_cells(METRICS, record="if False: record(metrics)")
    with pytest.raises(RunFailed, match="recorded 0 times"):
        lab.run()


def test_a_metric_that_a_rule_needs_and_nobody_recorded_is_a_sentence(lab: Any) -> None:
    lab.set_cells('metrics = {"difference_nats": 1}')
    with pytest.raises(
        BadBet, match="reads the metric 'control_difference_nats', which the notebook did not record"
    ):
        lab.run()


def test_a_nan_is_refused_in_the_notebook(lab: Any) -> None:
    fails(
        lab, METRICS + 'metrics["difference_nats"] = float("nan")', "BadBet: metrics.difference_nats is nan"
    )


@pytest.mark.parametrize("limit_bytes", [1_000, 30_000])
def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_written(lab: Any, limit_bytes: int) -> None:
    lab.set_cells(METRICS + 'print("x" * 50_000)')
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from sharedllm.bets import Catalogue, run\n"
        "from sharedllm.errors import SharedLLMError\n"
        f"catalogue = Catalogue(Path({str(lab.catalogue.root)!r}))\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
        "try: run(catalogue, catalogue.bet('b118'), 'toy')\n"
        "except SharedLLMError as error: print(error); sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    assert not list(lab.root.rglob("*.partial"))
    for path in lab.catalogue.runs.rglob("*.ipynb"):
        read_notebook(path)
    assert not (lab.catalogue.runs / "b118" / "toy-full").exists()


def test_a_runner_that_is_killed_takes_the_notebook_with_it(lab: Any) -> None:
    pid_file = lab.root / "pid"
    lab.set_cells(f'import os\nopen({str(pid_file)!r}, "w").write(str(os.getpid()) + " ")\nwhile True: pass')
    script = (
        "from pathlib import Path\nfrom sharedllm.bets import Catalogue, run\n"
        f"catalogue = Catalogue(Path({str(lab.catalogue.root)!r}))\n"
        "run(catalogue, catalogue.bet('b118'), 'toy')\n"
    )
    runner = subprocess.Popen([sys.executable, "-c", script])
    deadline_s = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text().endswith(" ")):
        assert time.monotonic() < deadline_s
        assert runner.poll() is None
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    assert gone(int(pid_file.read_text()))


def test_a_run_that_is_stopped_keeps_its_notebook(lab: Any) -> None:
    pid_file = lab.root / "pid"
    lab.set_cells(f'open({str(pid_file)!r}, "w").write("here")\nwhile True: pass')
    command = [sys.executable, "-m", "sharedllm.cli.main", "bets", "run", "b118"]
    runner = subprocess.Popen(
        command, cwd=lab.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline_s = time.monotonic() + 60
    while not pid_file.exists():
        assert time.monotonic() < deadline_s
        assert runner.poll() is None
    runner.send_signal(signal.SIGTERM)
    _, said = runner.communicate()
    assert (runner.returncode, "The run was stopped in cell 3 of 4" in said) == (1, True)
    assert read_result(interrupted(lab) / "result.json").fate == "interrupted"


def test_plain_papermill_runs_the_same_notebook(lab: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.ipynb"
    papermill = [sys.executable, "-m", "papermill", "--no-progress-bar", "-p", "tokens", "20"]
    env = {**os.environ, "JUPYTER_PATH": str(_kernelspec(tmp_path))}
    subprocess.run(
        [*papermill, str(lab.folder / "bet.ipynb"), str(out)], check=True, capture_output=True, env=env
    )
    assert set(recorded(read_notebook(out))["metrics"]) == {"difference_nats", "control_difference_nats"}


def _kernelspec(folder: Path) -> Path:
    """A kernelspec named python3 for this interpreter, as any Jupyter has one."""
    spec = folder / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (spec / "kernel.json").write_text(f'{{"argv": {argv}, "display_name": "Python 3", "language": "python"}}')
    return folder / "jupyter"
