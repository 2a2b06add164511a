"""A sweep on a real SLURM: one cell fails, one is preempted, one reaches its time limit."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest
from cluster import SMALL, Cell, cells, first_mid_run, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
RATES = ["1e30", *(f"{n}e-5" for n in range(1, 7))]
SWEEP = [
    "-m", "hydra/launcher=slurm_array", "hydra.launcher.partition=scavenge", *SMALL,
    "hydra.launcher.array_parallelism=3", "hydra.launcher.timeout_min=10",
    f"optimizer.lr={','.join(RATES)}",
]  # fmt: skip


def suspended_cells(folder, count, *excluded):
    """Wait for ``count`` cells in the middle of their steps and suspend them."""
    found = []
    while len(found) < count:
        found.append(first_mid_run(folder, *excluded, *found))
    return found


def let_it_reach_its_time_limit(slurm, cell):
    slurm.ask("scontrol", "update", f"JobId={cell.job}", "TimeLimit=1")
    # SLURM checks the limits twice a minute, and its signal wakes a suspended process.
    wait_for(lambda: slurm.was_requeued(cell.job))


def preempt_one(slurm, running):
    """Preempt one of the three suspended cells, which SLURM chooses; continue the others."""
    slurm.preempt(cpus=6)
    wait_for(lambda: any(slurm.was_requeued(cell.job) for cell in running))
    running.sort(key=lambda cell: not slurm.was_requeued(cell.job))
    for cell in running[1:]:
        cell.send(signal.SIGCONT)
    return running[0]


@pytest.fixture(scope="module")
def sweep(slurm, tmp_path_factory):
    """Run seven cells, three at once; preempt one and let one reach its time limit."""
    folder = tmp_path_factory.mktemp("sweep")
    command = slurm.train(folder, *SWEEP)
    # All three are suspended until SLURM acts; otherwise the others would finish meanwhile.
    limited, *running = suspended_cells(folder, 3)
    let_it_reach_its_time_limit(slurm, limited)
    running += suspended_cells(folder, 1, limited, *running)
    preempted = preempt_one(slurm, running)
    for cell in (limited, preempted):
        slurm.start_now(cell.job)
    out, err = command.communicate(timeout=200)
    return SimpleNamespace(
        folder=folder, out=out, err=err, code=command.returncode,
        limited=limited, preempted=preempted, cells=cells(folder),
    )  # fmt: skip


def test_all_cells_but_one_finish_and_the_exit_code_reports_the_failure(sweep):
    failed = [cell for cell in sweep.cells if not cell.has("result.json")]
    assert len(sweep.cells) == 7, sweep.err
    assert [cell.overrides[0] for cell in failed] == ["optimizer.lr=1e+30"]
    assert "the losses of this step are nan" in failed[0].failure["reason"]
    assert sweep.code == 1
    assert "7 cells: 6 finished, 1 failed" in sweep.out


def test_the_preempted_and_the_limited_cell_were_requeued_and_resumed(sweep):
    for cell in (sweep.preempted, sweep.limited):
        log = (cell.folder / "train.log").read_text()
        assert "stopped by SIGUSR2" in log
        assert "continuing after step" in log
    assert sweep.limited.folder != sweep.preempted.folder


def test_an_interrupted_cell_has_the_result_of_an_uninterrupted_one(sweep, slurm, tmp_path):
    cut = [sweep.preempted, sweep.limited]
    rates = [cell.overrides[0].removeprefix("optimizer.lr=") for cell in cut]
    command = slurm.train(tmp_path, "-m", f"optimizer.lr={','.join(rates)}")
    _, err = command.communicate(timeout=100)
    assert command.returncode == 0, err
    for cell in cut:
        (folder,) = tmp_path.rglob(cell.folder.name)
        whole = Cell(folder)
        assert (cell.result["sittings"], whole.result["sittings"]) == (2, 1)
        assert cell.result["metrics"] == whole.result["metrics"]
        assert cell.result["weights"] == whole.result["weights"]


def test_a_second_submission_runs_only_missing_cells(sweep, slurm):
    jobs = {cell.folder: cell.job for cell in sweep.cells}
    command = slurm.train(sweep.folder, *SWEEP)
    out, err = command.communicate(timeout=100)
    again = [cell for cell in sweep.cells if cell.job != jobs[cell.folder]]
    assert [cell.overrides[0] for cell in again] == ["optimizer.lr=1e+30"]
    assert "1 job submitted" in err
    assert "7 cells: 6 skipped, 1 failed" in out
    assert command.returncode == 1
