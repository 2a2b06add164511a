"""The SLURM launcher's requests and how it reads the answers, with stand-ins for SLURM."""

from __future__ import annotations

import json
import os
import pickle

import pytest

from lozo_bench.launch import slurm_queue
from lozo_bench.launch.cells import Planned
from lozo_bench.launch.slurm_outcome import SlurmJob, classified, stored_outcome
from lozo_bench.launch.slurm_queue import GRACE_S, JobState, Watch, job_states, why_dead
from lozo_bench.launch.slurm_screen import summary
from lozo_bench.runs.outcome import Code, Failure, read_failure, write_failure
from lozo_bench.runs.status import CellState


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with stand-ins for SLURM's programs: each prints the file NAME.txt."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name in ("sbatch", "srun", "squeue", "scontrol", "sacct"):
        printed = folder / f"{name}.txt"
        printed.write_text("")
        program = folder / name
        program.write_text(
            f'#!/bin/sh\necho "$0" "$@" >> {folder}/requests\n'
            f'[ -f "$1" ] && cp "$1" {folder}/script\n'
            f"cat {printed}\n[ ! -f {printed}.error ] || {{ cat {printed}.error >&2; exit 1; }}\n"
        )
        program.chmod(0o755)
    (folder / "sbatch.txt").write_text("Submitted batch job 7\n")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm_queue, "GRACE_S", 0.0)
    return folder


def sbatch_options(cluster):
    lines = (cluster / "script").read_text().splitlines()
    return {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}


@pytest.mark.parametrize(
    ("launcher", "options"),
    [
        (
            ["slurm", "hydra.launcher.partition=gpu", "hydra.launcher.account=us"],
            {"gpus-per-node=1", "ntasks-per-node=1", "cpus-per-task=4", "mem=32GB", "time=240",
             "signal=USR2@120", "partition=gpu", "account=us", "array=0-1%2"},
        ),
        (
            ["slurm_array", "hydra.launcher.array_parallelism=1", "hydra.launcher.qos=low",
             "hydra.launcher.constraint=a100"],
            {"gpus-per-node=1", "array=0-1%1", "qos=low", "constraint=a100"},
        ),
        (["slurm_node"], {"gpus-per-node=8", "ntasks-per-node=8", "nodes=1", "exclusive"}),
        (
            ["slurm_nodes", "hydra.launcher.gpus_per_node=4", "hydra.launcher.nodes=3"],
            {"gpus-per-node=4", "ntasks-per-node=4", "nodes=3", "exclusive"},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_a_preset_passes_its_options_to_sbatch(cluster, command, launcher, options):
    name, *settings = launcher
    code, _, _ = command("-m", f"hydra/launcher={name}", *settings, "seed=s0,s1")
    assert options <= sbatch_options(cluster)
    assert code == 1  # this SLURM forgets its jobs at once


def test_setup_lines_and_cpus_are_in_the_job_script(cluster, command):
    command(
        "-m", "hydra/launcher=slurm", "hydra.launcher.setup=[module load cuda]",
        "hydra.launcher.cpus_per_task=2",
    )  # fmt: skip
    script = (cluster / "script").read_text()
    assert "\nmodule load cuda\n" in script
    assert " --cpus-per-task=2 sh -c " in script


def test_a_job_that_slurm_forgets_is_recorded_as_a_failure(cluster, command, tmp_path):
    code, out, err = command("-m", "hydra/launcher=slurm", "seed=s0", "optimizer=mezo")
    (folder,) = tmp_path.glob("outputs/*/reviews/*/mezo-*")
    failure = read_failure(folder)
    assert "SLURM has forgotten it; see" in failure.reason
    assert failure.command == "lozo-train seed=s0 optimizer=mezo"
    assert "1 cell: 1 failed" in out
    assert "job 7: mezo-r2-s0-" in err
    assert code == 1


def test_finished_cells_are_not_submitted(cluster, command, tmp_path):
    command("-m", "hydra/launcher=slurm", "seed=s0,s1")
    for folder in tmp_path.glob("outputs/*/reviews/*/*"):
        (folder / "failed.json").unlink()
        (folder / "result.json").write_text('{"metrics": {"test": {"accuracy": 0.5}}}')
    (cluster / "requests").unlink()
    code, out, _ = command("-m", "hydra/launcher=slurm", "seed=s0,s1")
    assert not (cluster / "requests").exists()
    assert "2 cells: 2 skipped" in out
    assert code == 0


def test_rerun_failed_submits_only_failed_cells(cluster, command, tmp_path):
    command("-m", "hydra/launcher=slurm", "seed=s0,s1")
    sorted(tmp_path.glob("outputs/*/reviews/*/*/failed.json"))[0].unlink()
    _, out, err = command("-m", "hydra/launcher=slurm", "seed=s0,s1", "rerun=failed")
    assert "did not fail before" in out
    assert "1 job submitted" in err


def test_a_machine_without_slurm_is_a_one_line_error(command, monkeypatch):
    monkeypatch.setenv("PATH", "/bin-that-is-not-there")
    code, _, err = command("-m", "hydra/launcher=slurm", "seed=s0")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "there is no sbatch on this machine" in err


def test_a_refusal_by_sbatch_is_a_one_line_error(cluster, command):
    (cluster / "sbatch.txt.error").write_text("sbatch: error: invalid partition\n")
    code, _, err = command("-m", "hydra/launcher=slurm", "seed=s0")
    assert code == 2
    assert err.splitlines() == ["SLURM does not accept the jobs: sbatch: error: invalid partition"]


def test_only_jobs_that_slurm_knows_have_a_state(cluster):
    (cluster / "squeue.txt").write_text("7_0|RUNNING|None\n7_1|PENDING|Resources\n")
    assert job_states(["7_0", "7_1", "7_2"]) == {
        "7_0": JobState("RUNNING", "None"),
        "7_1": JobState("PENDING", "Resources"),
    }
    assert "--jobs=7\n" in (cluster / "requests").read_text()


def test_without_an_answer_from_slurm_jobs_count_as_alive(cluster):
    (cluster / "squeue.txt.error").write_text("slurm_load_jobs error: Unable to contact\n")
    watch = Watch()
    watch.look(["7"])
    assert job_states(["7"]) is None
    assert watch.state_of("7").alive
    assert not watch.is_dead("7")


def test_a_job_is_dead_only_after_it_has_been_gone_for_a_while(cluster, monkeypatch):
    monkeypatch.setattr(slurm_queue, "GRACE_S", GRACE_S)
    monkeypatch.setattr(slurm_queue, "_SHORTEST_PAUSE_S", 0.0)
    now = 1000.0
    monkeypatch.setattr(slurm_queue.time, "monotonic", lambda: now)
    (cluster / "squeue.txt.error").write_text("slurm_load_jobs error: Invalid job id specified\n")
    watch = Watch()
    watch.look(["7"])
    assert not watch.is_dead("7")
    now += GRACE_S + 1
    assert watch.is_dead("7")
    (cluster / "squeue.txt.error").unlink()
    (cluster / "squeue.txt").write_text("7|PENDING|BeginTime\n")  # requeued
    watch.look(["7"])
    assert not watch.is_dead("7")


@pytest.mark.parametrize(
    ("state", "fields", "reason"),
    [
        ("TIMEOUT", "ExitCode=0:0", "signal_delay_s"),
        ("OUT_OF_MEMORY", "ExitCode=0:125", "hydra.launcher.mem_gb"),
        ("NODE_FAIL", "ExitCode=0:0", "its node went down"),
        ("CANCELLED", "ExitCode=0:15", "by scancel"),
        ("FAILED", "ExitCode=0:9", "killed by signal 9; out of memory"),
        ("FAILED", "ExitCode=139:0", "killed by signal 11"),
        ("FAILED", "ExitCode=3:0", "exited with code 3"),
        ("FAILED", "ExitCode=143:0", "one of its processes was told to end"),
        ("DEADLINE", "", "state DEADLINE"),
    ],
)
def test_the_reason_why_a_job_died(cluster, state, fields, reason):
    (cluster / "scontrol.txt").write_text(f"JobId=7 JobState={state} {fields}\n")
    assert reason in why_dead("7", JobState(state))


def test_the_accounting_database_is_asked_about_forgotten_jobs(cluster):
    forgotten = JobState("FORGOTTEN")
    (cluster / "sacct.txt.error").write_text("Slurm accounting storage is disabled\n")
    assert "SLURM has forgotten it" in why_dead("7", forgotten)
    (cluster / "sacct.txt.error").unlink()
    (cluster / "sacct.txt").write_text("CANCELLED by 0|0:15\n")
    assert "by scancel" in why_dead("7", forgotten)


def job_of(folder):
    folder.mkdir()
    return SlurmJob(Planned(None, folder, ["seed=s1"]), "7", folder / "logs", 0, 0)


def test_a_cell_that_finished_before_its_job_died_is_finished(tmp_path):
    job = job_of(tmp_path / "cell")
    result = {"metrics": {"test": {"accuracy": 0.5}}}
    (job.planned.folder / "result.json").write_text(json.dumps(result))
    ended = classified(job, None, "its node went down")
    assert (ended.cell.state, ended.code) == (CellState.finished, Code.finished)


def test_a_failure_that_the_cell_wrote_is_kept(tmp_path):
    job = job_of(tmp_path / "cell")
    write_failure(job.planned.folder, Failure("the loss is not finite", 2, "lozo-train"))
    ended = classified(job, Code.bad_input, "it ended with code 2")
    assert (ended.cell.state, ended.cell.note) == (CellState.failed, "the loss is not finite")
    assert ended.code is Code.bad_input


def test_a_cell_that_another_process_runs_is_skipped(tmp_path):
    ended = classified(job_of(tmp_path / "cell"), Code.busy, "")
    assert (ended.cell.state, ended.code) == (CellState.skipped, Code.busy)
    assert not (tmp_path / "cell" / "failed.json").exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("...\nUncompletedJobError: Job not requeued because: timed-out too many times.",
         "TIMEOUT, more often than hydra.launcher.max_num_timeout"),
        ("Traceback\n  File x\nOSError: no room\n    full_key: a", "OSError: no room; see "),
    ],
)  # fmt: skip
def test_the_error_that_a_job_raised_is_the_reason(tmp_path, error, reason):
    job = job_of(tmp_path / "cell")
    job.logs.mkdir()
    assert stored_outcome(job) is None
    (job.logs / "7_0_result.pkl").write_bytes(pickle.dumps(("error", error)))
    ended = stored_outcome(job)
    assert (ended.cell.state, ended.code) == (CellState.failed, Code.defect)
    assert reason in read_failure(job.planned.folder).reason


def test_the_summary_counts_jobs_and_names_the_most_frequent_reason():
    waiting = [JobState("PENDING", reason) for reason in ("Resources", "Resources", "Priority")]
    assert summary([JobState("RUNNING", "None"), *waiting]) == "1 running, 3 queued (Resources)"
    assert summary([JobState("RUNNING", "None")]) == "1 running, 0 queued"
