"""A sweep on a real SLURM: one cell fails, one is preempted, one hits its time limit."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest
from cluster import SMALL, Cell, cells, first_mid_run, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
RATES = ["1e30", *(f"{n}e-5" for n in range(1, 12))]
SWEEP = [
    "-m", "hydra/launcher=slurm_array", "hydra.launcher.partition=scavenge", *SMALL,
    "hydra.launcher.array_parallelism=3", "hydra.launcher.timeout_min=10",
    f"optimizer.lr={','.join(RATES)}",
]  # fmt: skip


def standing_still(folder, count, *not_these):
    """So many cells, each stopped in the middle of its steps."""
    found = []
    while len(found) < count:
        found.append(first_mid_run(folder, *not_these, *found))
    return found


def let_it_hit_its_time_limit(slurm, cell):
    slurm.ask("scontrol", "update", f"JobId={cell.job}", "TimeLimit=1")
    # SLURM looks at the limits twice a minute, and with its signal wakes what stands still.
    wait_for(lambda: slurm.was_requeued(cell.job))


def preempt_one(slurm, running):
    """The cells that run, three of eight CPUs, stand still while SLURM chooses one of them."""
    slurm.preempt(cpus=6)
    wait_for(lambda: any(slurm.was_requeued(cell.job) for cell in running))
    running.sort(key=lambda cell: not slurm.was_requeued(cell.job))
    for cell in running[1:]:
        cell.send(signal.SIGCONT)
    return running[0]


@pytest.fixture(scope="module")
def sweep(slurm, tmp_path_factory):
    """Twelve cells, three at once, and what is done to them."""
    folder = tmp_path_factory.mktemp("sweep")
    command = slurm.train(folder, *SWEEP)
    # All three stand still while SLURM takes its time: else the others would come to their ends.
    limited, *running = standing_still(folder, 3)
    let_it_hit_its_time_limit(slurm, limited)
    running += standing_still(folder, 1, limited, *running)
    preempted = preempt_one(slurm, running)
    for cell in (limited, preempted):
        slurm.start_now(cell.job)
    out, err = command.communicate(timeout=200)
    return SimpleNamespace(
        folder=folder, out=out, err=err, code=command.returncode,
        limited=limited, preempted=preempted, cells=cells(folder),
    )  # fmt: skip


def test_all_cells_end_as_they_should_and_the_exit_code_tells_of_the_failure(sweep):
    failed = [cell for cell in sweep.cells if not cell.has("result.json")]
    assert len(sweep.cells) == 12, sweep.err
    assert [cell.overrides[0] for cell in failed] == ["optimizer.lr=1e+30"]
    assert "the losses of this step are nan" in failed[0].failure["reason"]
    assert sweep.code == 1
    assert "12 cells: 11 finished, 1 failed" in sweep.out


def test_the_preempted_and_the_limited_cell_went_back_into_the_queue_and_on_from_there(sweep):
    for cell in (sweep.preempted, sweep.limited):
        log = (cell.folder / "train.log").read_text()
        assert "stopped by SIGUSR2" in log
        assert "going on after step" in log
    assert sweep.limited.folder != sweep.preempted.folder


def test_a_cell_that_was_interrupted_ends_like_one_that_was_not(sweep, slurm, tmp_path):
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


def test_submitting_again_runs_only_what_is_missing(sweep, slurm):
    jobs = {cell.folder: cell.job for cell in sweep.cells}
    command = slurm.train(sweep.folder, *SWEEP)
    out, err = command.communicate(timeout=100)
    again = [cell for cell in sweep.cells if cell.job != jobs[cell.folder]]
    assert [cell.overrides[0] for cell in again] == ["optimizer.lr=1e+30"]
    assert "1 job submitted" in err
    assert "12 cells: 11 skipped, 1 failed" in out
    assert command.returncode == 1
