"""What a SLURM job does when its cell was told to stop; without SLURM."""

from __future__ import annotations

import subprocess

import pytest

from lozo_bench.launch import slurm_job
from lozo_bench.launch.slurm_job import SlurmCell
from lozo_bench.launch.slurm_queue import STOPPED
from lozo_bench.runs.outcome import Code


@pytest.fixture
def waits(monkeypatch):
    """How long a job waits for a signal, instead of waiting."""
    found = []
    monkeypatch.setattr(slurm_job.time, "sleep", found.append)
    return found


def run(monkeypatch, tmp_path, code, rank=0, tasks=1):
    """A cell that ends with a code, or an exception, in a process of a job."""

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
def test_a_cell_that_was_not_stopped_answers(monkeypatch, tmp_path, code):
    assert run(monkeypatch, tmp_path, code) == code


def test_a_cell_that_was_stopped_leaves_no_answer(monkeypatch, tmp_path, waits):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, tmp_path, Code.stopped)
    assert end.value.code == STOPPED
    assert waits == []


def test_a_job_that_slurm_has_put_back_by_itself_leaves_no_answer(monkeypatch, tmp_path, waits):
    refused = subprocess.CalledProcessError(1, ["scontrol", "requeue", "7"])
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, tmp_path, refused)
    assert end.value.code == STOPPED


def test_the_first_of_several_waits_for_the_signal_that_the_others_had(
    monkeypatch, tmp_path, waits
):
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, Code.stopped, rank=0, tasks=2)
    assert waits == [30.0]


def test_the_others_end_well(monkeypatch, tmp_path, waits):
    """Where SLURM ends a job when any of its processes fails, the first is still to put it back."""
    assert run(monkeypatch, tmp_path, Code.stopped, rank=1, tasks=2) == Code.stopped
