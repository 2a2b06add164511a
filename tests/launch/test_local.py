"""Sweeps with hydra/launcher=local: separate processes, failures, signals and exit codes."""

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
PROCESS_INFO = "+hydra.callbacks.info._target_=cell_callbacks.WriteProcessInfo"


def start(folder, *arguments):
    """Start the command in its own process group, as a shell does."""
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
def ended_cells(tmp_path_factory):
    """Run six cells, four of which end their own process; return the folder and the output."""
    folder = tmp_path_factory.mktemp("ended_cells")
    end_process = "+hydra.callbacks.end._target_=cell_callbacks.EndProcess"
    at_once = "hydra.launcher.at_once=2"
    return folder, lozo_train(folder, *LOCAL, at_once, "seed.value=range(0,6)", end_process, *SHORT)


def test_a_cell_that_dies_does_not_stop_other_cells(ended_cells):
    folder, (code, _, _) = ended_cells
    assert code == 1
    assert [(cell(folder, seed) / "result.json").exists() for seed in range(6)] == [
        True, False, False, False, False, True,
    ]  # fmt: skip


def test_why_a_cell_died_is_in_its_folder_and_in_the_table(ended_cells):
    folder, (_, out, _) = ended_cells
    reasons = {
        1: "killed by SIGKILL; out of memory is the usual reason",
        2: "exited early with code 3",
        3: "exited early with code 0",
        4: "killed by SIGSEGV",
    }
    for seed, reason in reasons.items():
        failure = json.loads((cell(folder, seed) / "failed.json").read_text())
        assert failure["reason"].startswith(reason)
        assert failure["code"] == 1
        assert f"{cell(folder, seed).name}: {reason}" in out
    assert "6 cells: 2 finished, 4 failed" in out


def test_the_closing_table_counts_the_runs_that_are_finished(ended_cells):
    _, (_, out, _) = ended_cells
    (row,) = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    assert row[1].strip() == "2 of 6"


def test_each_failure_is_printed_with_a_command_that_runs_its_cell(ended_cells):
    folder, (_, out, _) = ended_cells
    (command,) = [line.strip() for line in out.splitlines() if "seed.value=1 " in line]
    program, *arguments = shlex.split(command)
    assert program == "lozo-train"
    code, _, err = lozo_train(folder, *arguments, "~hydra.callbacks.end")
    assert code == 0, err
    assert (cell(folder, 1) / "result.json").exists()


def test_stderr_has_one_line_per_start_and_end_and_no_traceback(ended_cells):
    folder, (_, _, err) = ended_cells
    lines = err.splitlines()
    for number in range(6):
        name = cell(folder, number).name
        assert f"[{number + 1}/6] {name} started" in lines
        assert sum(line.startswith(name) for line in lines) == 1
    assert len(lines) == 12


def test_a_cells_output_goes_to_its_folder_and_not_to_the_terminal(command, tmp_path):
    code, out, err = command(*LOCAL, "seed.value=7", PROCESS_INFO, *SHORT)
    assert code == 0, err
    console = (cell(tmp_path, 7) / "console.log").read_text()
    assert "printed by the cell" in console
    assert "zero-shot" in console
    assert "step 1" in (cell(tmp_path, 7) / "train.log").read_text()
    assert "printed" not in out + err
    assert "zero-shot" not in out + err


def test_a_repeated_sweep_skips_finished_cells_and_retries_failed_ones(command, tmp_path):
    code, out, _ = command(*LOCAL, "optimizer.eps=1e-3,-1", *SHORT)
    assert code == 1
    assert "optimizer.eps: given -1" in out
    code, out, err = command(*LOCAL, "optimizer.eps=1e-3,-1,1e-4", *SHORT)
    assert code == 1
    assert " (eps=1e-3) skipped: finished before\n" in err
    assert "3 cells: 1 finished, 1 skipped, 1 failed" in out


def test_a_cell_that_another_process_runs_is_skipped(command, tmp_path):
    from lozo_bench.runs.lock import Lock

    assert command(*LOCAL, "seed.value=0", *SHORT)[0] == 0
    with Lock(cell(tmp_path, 0)):
        code, out, _ = command(*LOCAL, "seed.value=0", "rerun=all", *SHORT)
    assert code == 0
    assert f"run by process {os.getpid()} on" in out


def test_each_cell_has_its_own_gpu_process_and_process_group(command, tmp_path, monkeypatch):
    """In the launcher's group, a cell would get Ctrl-C twice: from the terminal and launcher."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    code, _, err = command(
        *LOCAL, "hydra.launcher.at_once=2", "seed.value=range(0,4)", PROCESS_INFO, *SHORT
    )
    assert code == 0, err
    first, second = ((cell(tmp_path, seed) / "gpu").read_text() for seed in (0, 1))
    assert {first, second} == {"3", "5"}
    pids = [(cell(tmp_path, seed) / "pid").read_text() for seed in range(4)]
    assert len(set(pids)) == 4
    assert [(cell(tmp_path, seed) / "group").read_text() for seed in range(4)] == pids


def test_a_cell_whose_fork_server_dies_is_stopped_and_not_failed(tmp_path):
    short = [*LONG, "steps=100", "eval_every=100"]
    with start(tmp_path, *LOCAL, "seed.value=0,1", PROCESS_INFO, *short) as process:
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
def test_the_gpus_setting_limits_the_number_of_gpus(command, tmp_path, monkeypatch, gpus, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    code, _, err = command(
        *LOCAL, f"hydra.launcher.gpus={gpus}", "seed.value=0", PROCESS_INFO, *SHORT
    )
    assert code == 0, err
    assert (cell(tmp_path, 0) / "gpu").read_text() == seen


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("at_once=0", "hydra.launcher.at_once: given 0; allowed: a whole number >= 1"),
        ("gpus=3", "hydra.launcher.gpus: given 3; allowed: null (all) or 0 to 2"),
    ],
)
def test_a_setting_out_of_range_is_a_one_line_error(command, monkeypatch, setting, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    code, _, err = command(*LOCAL, f"hydra.launcher.{setting}", "seed.value=0", *SHORT)
    assert code == 2
    assert err.startswith(message)
    assert len(err.splitlines()) == 1


def test_a_sweep_with_a_cell_whose_folder_name_cannot_be_resolved_does_not_start(command, tmp_path):
    """Its config composes, but the name of its folder needs a value that is missing."""
    code, _, err = command(*LOCAL, "seed.value=0,1", "hydra.sweep.subdir=${nope}", *SHORT)
    assert code == 2
    assert "hydra.sweep.subdir: " in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_running_cells_save_and_no_other_cell_begins(tmp_path, number):
    arguments = [*LOCAL, "hydra.launcher.at_once=2", "seed.value=0,1,2", *LONG, PROCESS_INFO]
    with start(tmp_path, *arguments) as process:
        wait_for(lambda: all(steps(tmp_path, seed) for seed in (0, 1)))
        os.killpg(process.pid, number)  # as a terminal does: to the whole process group
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "2 cells: 2 stopped" in out
    assert "1 more did not begin" in out
    assert "Traceback" not in err
    for seed in (0, 1):
        assert (cell(tmp_path, seed) / "journal.bin").stat().st_size
        console = (cell(tmp_path, seed) / "console.log").read_text()
        assert "the same command continues" in console.splitlines()[-1]
        assert not (cell(tmp_path, seed) / "failed.json").exists()
        assert not (cell(tmp_path, seed) / "lock").exists()


def test_a_second_ctrl_c_kills_the_cells(tmp_path):
    arguments = [*LOCAL, "seed.value=0", *LONG, PROCESS_INFO]
    with start(tmp_path, *arguments) as process:
        wait_for(lambda: list(tmp_path.rglob("metrics.jsonl")))
        pid = int((cell(tmp_path, 0) / "pid").read_text())
        os.kill(pid, signal.SIGSTOP)  # a cell that does not react to signals
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


def test_cells_save_and_end_when_their_launcher_is_killed(tmp_path):
    with start(tmp_path, *LOCAL, "seed.value=0", *LONG, PROCESS_INFO) as process:
        wait_for(lambda: list(tmp_path.rglob("metrics.jsonl")))
        process.kill()
    pid = int((cell(tmp_path, 0) / "pid").read_text())
    wait_for(lambda: not running(pid))
    assert not (cell(tmp_path, 0) / "lock").exists()
    assert "the same command continues" in (cell(tmp_path, 0) / "console.log").read_text()


def test_a_relative_path_in_a_cells_config_refers_to_the_working_directory(tmp_path):
    """Everything runs in fresh processes, the launcher's fork server included."""
    from lozo_bench.config.paths import EMBEDDED

    shutil.copytree(EMBEDDED / "tiny_opt", tmp_path / "my_model")
    here = ["model=local", "model.path=my_model", "model.name=mine"]
    command = [sys.executable, "-m", "lozo_bench.train", *LOCAL, *here, *SHORT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    out = done.stdout
    assert done.returncode == 0, done.stderr
    assert "1 cells: 1 finished" in out or "1 cell: 1 finished" in out
