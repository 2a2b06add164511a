"""The function that a SLURM job runs when its cell is stopped; tested without SLURM."""

from __future__ import annotations

import subprocess

import pytest

from lozo_bench.launch import slurm_job
from lozo_bench.launch.slurm_job import SlurmCell
from lozo_bench.launch.slurm_queue import STOPPED
from lozo_bench.runs.outcome import Code


@pytest.fixture
def waits(monkeypatch):
    """The seconds that a job would wait for a signal, recorded instead of slept."""
    found = []
    monkeypatch.setattr(slurm_job.time, "sleep", found.append)
    return found


def run(monkeypatch, tmp_path, code, rank=0, tasks=1):
    """Run a job whose cell returns a code or raises an exception."""

    def cell(config):
        if isinstance(code, Exception):
            raise code
        return code

    monkeypatch.setattr(slurm_job, "run_as_hydra_job", cell)
    monkeypatch.setenv("SLURM_PROCID", str(rank))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", str(tasks))
    monkeypatch.chdir(tmp_path)
    return SlurmCell(None, tmp_path)()


@pytest.mark.parametrize("code", [Code.finished, Code.bad_input, Code.busy])
def test_a_cell_that_was_not_stopped_returns_its_code(monkeypatch, tmp_path, code):
    assert run(monkeypatch, tmp_path, code) == code


def test_a_stopped_cell_exits_without_a_result(monkeypatch, tmp_path, waits):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, tmp_path, Code.stopped)
    assert end.value.code == STOPPED
    assert waits == []


def test_a_job_that_slurm_requeued_itself_exits_without_a_result(monkeypatch, tmp_path, waits):
    refused = subprocess.CalledProcessError(1, ["scontrol", "requeue", "7"])
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, tmp_path, refused)
    assert end.value.code == STOPPED


def test_the_first_of_several_processes_waits_for_the_signal(monkeypatch, tmp_path, waits):
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, Code.stopped, rank=0, tasks=2)
    assert waits == [30.0]


def test_the_other_processes_exit_normally(monkeypatch, tmp_path, waits):
    """SLURM may end a job when one process fails, before the first process has requeued it."""
    assert run(monkeypatch, tmp_path, Code.stopped, rank=1, tasks=2) == Code.stopped


@pytest.mark.parametrize(("rank", "renamed"), [(0, [("12_3", "lr=1e-3 lozo-s0")]), (1, [])])
def test_the_first_process_gives_its_job_the_cells_name(monkeypatch, tmp_path, rank, renamed):
    found = []
    monkeypatch.setattr(slurm_job, "rename_job", lambda *given: found.append(given))
    monkeypatch.setattr(slurm_job, "run_as_hydra_job", lambda config: Code.finished)
    monkeypatch.setenv("SLURM_JOB_ID", "12_3")
    monkeypatch.setenv("SLURM_PROCID", str(rank))
    monkeypatch.chdir(tmp_path)
    assert SlurmCell(None, tmp_path, "lr=1e-3 lozo-s0")() == Code.finished
    assert found == renamed
