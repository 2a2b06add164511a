"""Sweeps with hydra/launcher=local: what a cell does to the others, the terminal and the end."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import programs
import pytest
from programs import wait_for

LOCAL = ["-m", "hydra/launcher=local"]
SHORT = [
    "experiment=smoke", "steps=1", "eval_every=1", "model.device=cpu", "task.source.train=32",
    "task.source.dev=8", "task.source.test=8",
]  # fmt: skip
LONG = ["experiment=smoke", "model.device=cpu", "steps=20000", "eval_every=20000"]
SPY = "+hydra.callbacks.spy._target_=cell_callbacks.Spy"


def start(folder, *arguments):
    """Start the command in a process group of its own, as a shell does."""
    return programs.start(folder, *arguments)


def lozo_train(folder, *arguments):
    done = programs.run(folder, *arguments)
    return done.returncode, done.stdout, done.stderr


def cell(folder, seed):
    (found,) = folder.glob(f"outputs/smoke/*/*/*-s{seed}-*")
    return found


def steps(folder, seed):
    """How many steps of a running cell are on disk."""
    paths = list(folder.glob(f"outputs/smoke/*/*/*-s{seed}-*/metrics.jsonl"))
    return sum(path.read_text().count('"loss"') for path in paths)


@pytest.fixture(scope="module")
def fates(tmp_path_factory):
    """Six cells, of which four end their process."""
    folder = tmp_path_factory.mktemp("fates")
    fate = "+hydra.callbacks.fate._target_=cell_callbacks.Fate"
    at_once = "hydra.launcher.at_once=2"
    return folder, lozo_train(folder, *LOCAL, at_once, "seed.value=range(0,6)", fate, *SHORT)


def test_cells_that_die_stop_no_other(fates):
    folder, (code, _, _) = fates
    assert code == 1
    assert [(cell(folder, seed) / "result.json").exists() for seed in range(6)] == [
        True, False, False, False, False, True,
    ]  # fmt: skip


def test_a_cell_that_died_silently_is_told_of_in_its_folder_and_in_the_table(fates):
    folder, (_, out, _) = fates
    reasons = {
        1: "killed by SIGKILL; out of memory is the usual reason",
        2: "exited with code 3",
        3: "exited with code 0",
        4: "killed by SIGSEGV",
    }
    for seed, reason in reasons.items():
        told = json.loads((cell(folder, seed) / "failed.json").read_text())
        assert told["reason"].startswith(reason)
        assert told["code"] == 1
        assert f"{cell(folder, seed).name}: {reason}" in out
    assert "6 cells: 2 finished, 4 failed" in out


def test_the_rows_of_the_table_are_in_the_order_of_the_sweep(fates):
    folder, (_, out, _) = fates
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("│")]
    assert rows == [cell(folder, seed).name for seed in range(6)]


def test_each_failure_comes_with_a_command_that_runs_it_alone(fates):
    folder, (_, out, _) = fates
    (command,) = [line.strip() for line in out.splitlines() if "seed.value=1 " in line]
    program, *arguments = shlex.split(command)
    assert program == "lozo-train"
    code, _, err = lozo_train(folder, *arguments, "~hydra.callbacks.fate")
    assert code == 0, err
    assert (cell(folder, 1) / "result.json").exists()


def test_a_line_tells_of_each_start_and_end_and_no_traceback_of_any(fates):
    folder, (_, _, err) = fates
    lines = err.splitlines()
    for number in range(6):
        name = cell(folder, number).name
        assert f"[{number + 1}/6] {name} started" in lines
        assert sum(line.startswith(name) for line in lines) == 1
    assert len(lines) == 12


def test_what_a_cell_prints_is_in_its_folder_and_not_on_the_terminal(command, tmp_path):
    code, out, err = command(*LOCAL, "seed.value=7", SPY, *SHORT)
    assert code == 0, err
    console = (cell(tmp_path, 7) / "console.log").read_text()
    assert "printed by the cell" in console
    assert "zero-shot" in console
    assert "step 1" in (cell(tmp_path, 7) / "train.log").read_text()
    assert "printed" not in out + err
    assert "zero-shot" not in out + err


def test_a_sweep_again_skips_what_is_finished_and_retries_what_failed(command, tmp_path):
    code, out, _ = command(*LOCAL, "rank.value=1,0", *SHORT)
    assert code == 1
    assert "rank.value: given 0" in out
    code, out, _ = command(*LOCAL, "rank.value=1,0,2", *SHORT)
    assert code == 1
    assert "finished before" in out
    assert "3 cells: 1 finished, 1 skipped, 1 failed" in out


def test_a_cell_that_another_process_runs_is_skipped_and_is_no_failure(command, tmp_path):
    from lozo_bench.runs.lock import Lock

    assert command(*LOCAL, "seed.value=0", *SHORT)[0] == 0
    with Lock(cell(tmp_path, 0)):
        code, out, _ = command(*LOCAL, "seed.value=0", "rerun=all", *SHORT)
    assert code == 0
    assert f"run by process {os.getpid()} on" in out


def test_gpus_are_dealt_and_each_cell_is_a_process_and_a_group_of_its_own(
    command, tmp_path, monkeypatch
):
    """A group: or Ctrl-C would reach a cell twice, from the terminal and from the launcher."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    code, _, err = command(*LOCAL, "hydra.launcher.at_once=2", "seed.value=range(0,4)", SPY, *SHORT)
    assert code == 0, err
    first, second = ((cell(tmp_path, seed) / "gpu").read_text() for seed in (0, 1))
    assert {first, second} == {"3", "5"}
    pids = [(cell(tmp_path, seed) / "pid").read_text() for seed in range(4)]
    assert len(set(pids)) == 4
    assert [(cell(tmp_path, seed) / "group").read_text() for seed in range(4)] == pids


def test_a_cell_whose_fork_server_dies_is_stopped_and_not_called_failed(tmp_path):
    short = [*LONG, "steps=100", "eval_every=100"]
    with start(tmp_path, *LOCAL, "seed.value=0,1", SPY, *short) as process:
        wait_for(lambda: list(tmp_path.rglob("metrics.jsonl")))
        pid = int((cell(tmp_path, 0) / "pid").read_text())
        server = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "2 cells: 1 finished, 1 stopped" in out
    wait_for(lambda: not running(pid))
    assert not (cell(tmp_path, 0) / "lock").exists()
    assert not (cell(tmp_path, 0) / "failed.json").exists()


@pytest.mark.parametrize(("gpus", "seen"), [("0", ""), ("1", "3"), ("null", "3")])
def test_as_many_gpus_are_used_as_were_asked_for(command, tmp_path, monkeypatch, gpus, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    code, _, err = command(*LOCAL, f"hydra.launcher.gpus={gpus}", "seed.value=0", SPY, *SHORT)
    assert code == 0, err
    assert (cell(tmp_path, 0) / "gpu").read_text() == seen


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("at_once=0", "hydra.launcher.at_once: given 0; allowed: a whole number >= 1"),
        ("gpus=3", "hydra.launcher.gpus: given 3; allowed: null (all) or 0 to 2"),
    ],
)
def test_a_setting_out_of_range_is_one_line(command, monkeypatch, setting, told):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    code, _, err = command(*LOCAL, f"hydra.launcher.{setting}", "seed.value=0", *SHORT)
    assert code == 2
    assert err.startswith(told)
    assert len(err.splitlines()) == 1


def test_a_cell_whose_folder_has_no_name_fails_alone(command, tmp_path):
    """Composing it is fine; naming it needs a value that is not there."""
    code, out, _ = command(*LOCAL, "seed.value=0,???", *SHORT)
    assert code == 1
    assert "2 cells: 1 finished, 1 failed" in out
    assert "cell 1: hydra.sweep.subdir: " in out
    assert "Missing mandatory value: seed.value" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_running_cells_save_and_no_other_begin(tmp_path, number):
    arguments = [*LOCAL, "hydra.launcher.at_once=2", "seed.value=0,1,2", *LONG, SPY]
    with start(tmp_path, *arguments) as process:
        wait_for(lambda: all(steps(tmp_path, seed) for seed in (0, 1)))
        os.killpg(process.pid, number)  # as a terminal does: to all that the shell started
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "2 cells: 2 stopped" in out
    assert "1 more did not begin" in out
    assert "Traceback" not in err
    for seed in (0, 1):
        assert (cell(tmp_path, seed) / "journal.bin").stat().st_size
        console = (cell(tmp_path, seed) / "console.log").read_text()
        assert "the same command goes on" in console.splitlines()[-1]
        assert not (cell(tmp_path, seed) / "failed.json").exists()
        assert not (cell(tmp_path, seed) / "lock").exists()


def test_a_second_ctrl_c_kills(tmp_path):
    arguments = [*LOCAL, "seed.value=0", *LONG, SPY]
    with start(tmp_path, *arguments) as process:
        wait_for(lambda: list(tmp_path.rglob("metrics.jsonl")))
        pid = int((cell(tmp_path, 0) / "pid").read_text())
        os.kill(pid, signal.SIGSTOP)  # a cell that will not hear
        os.killpg(process.pid, signal.SIGINT)
        wait_for(lambda: "stopping" in process.stderr_so_far())
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "1 cell: 1 stopped" in out
    assert "Traceback" not in err
    wait_for(lambda: not running(pid))


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_cells_whose_launcher_is_killed_save_and_end(tmp_path):
    with start(tmp_path, *LOCAL, "seed.value=0", *LONG, SPY) as process:
        wait_for(lambda: list(tmp_path.rglob("metrics.jsonl")))
        process.kill()
    pid = int((cell(tmp_path, 0) / "pid").read_text())
    wait_for(lambda: not running(pid))
    assert not (cell(tmp_path, 0) / "lock").exists()
    assert "the same command goes on" in (cell(tmp_path, 0) / "console.log").read_text()


def test_a_path_in_a_cells_config_is_seen_from_where_the_command_was_given(tmp_path):
    """All of it in fresh processes, the launcher's fork server included, as a user has it."""
    from lozo_bench.models.locate import EMBEDDED

    shutil.copytree(EMBEDDED / "tiny_opt", tmp_path / "my_model")
    here = ["model=local", "model.path=my_model", "model.name=mine"]
    command = [sys.executable, "-m", "lozo_bench.train", *LOCAL, *here, *SHORT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    out = done.stdout
    assert done.returncode == 0, done.stderr
    assert "1 cells: 1 finished" in out or "1 cell: 1 finished" in out
