"""Jobs that end without a result, where SLURM keeps no accounting; an interrupted launcher."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest
from cluster import SMALL, cells, first_mid_run, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
SWEEP = ["-m", "hydra/launcher=slurm", "hydra.launcher.partition=spot", *SMALL, "seed=s0,s1,s2"]


@pytest.fixture(scope="module")
def sweep(slurm, tmp_path_factory):
    """Kill one cell, cancel one, preempt one without a warning, and press Ctrl-C."""
    folder = tmp_path_factory.mktemp("lost")
    command = slurm.train(folder, *SWEEP)
    killed = first_mid_run(folder)
    cancelled = first_mid_run(folder, killed)
    preempted = first_mid_run(folder, killed, cancelled)
    killed.send(signal.SIGKILL)
    slurm.ask("scancel", cancelled.job)
    slurm.preempt(cpus=8)
    wait_for(lambda: slurm.was_requeued(preempted.job))
    wait_for(lambda: killed.has("failed.json") and cancelled.has("failed.json"))
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=20)
    return SimpleNamespace(
        folder=folder, err=err, code=command.returncode, jobs=[cell.job for cell in cells(folder)],
        killed=killed, cancelled=cancelled, preempted=preempted,
        failures=[killed.failure, cancelled.failure],
    )  # fmt: skip


def test_the_folder_of_a_dead_job_says_why_it_died(sweep):
    killed, cancelled = sweep.failures
    assert "FAILED: killed by signal 9" in killed["reason"]
    assert "CANCELLED" in cancelled["reason"]
    assert f"{sweep.killed.job}_0_log.out" in killed["reason"]
    assert killed["command"].startswith("lozo-train seed=s")


def test_an_interrupted_launcher_names_the_remaining_jobs(sweep):
    assert sweep.code == 130
    assert f"1 job continues in SLURM: {sweep.preempted.job}" in sweep.err
    assert f"scancel {sweep.preempted.job}" in sweep.err
    assert "Traceback" not in sweep.err


def test_a_cell_saves_its_state_even_without_a_grace_time(sweep):
    assert "stopped by SIGTERM" in (sweep.cancelled.folder / "train.log").read_text()
    # SLURM sends both signals at once and requeues the job itself.
    assert "stopped by SIG" in (sweep.preempted.folder / "train.log").read_text()


def test_the_same_command_waits_for_queued_jobs_and_submits_dead_ones(sweep, slurm):
    command = slurm.train(sweep.folder, *SWEEP)
    slurm.start_now(sweep.preempted.job)
    out, err = command.communicate(timeout=100)
    assert f"waiting for job {sweep.preempted.job}" in err
    assert sweep.preempted.job in sweep.jobs
    assert "2 jobs submitted" in err
    assert "3 cells: 3 finished" in out
    assert command.returncode == 0
    assert sweep.preempted.result["sittings"] == sweep.cancelled.result["sittings"] == 2
