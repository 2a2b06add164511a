"""A cell that is run by several processes of one SLURM job."""

from __future__ import annotations

import pytest
from cluster import SMALL, cells, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


def test_a_cell_of_two_tasks_is_requeued_and_resumed(slurm, tmp_path):
    command = slurm.train(
        tmp_path, "-m", "hydra/launcher=slurm_node", *SMALL, "hydra.launcher.tasks_per_node=2"
    )
    wait_for(lambda: any(cell.is_mid_run() for cell in cells(tmp_path)))
    (cell,) = cells(tmp_path)
    slurm.ask("scancel", "--signal=USR2", cell.job)
    wait_for(lambda: slurm.was_requeued(cell.job))
    slurm.start_now(cell.job)
    out, err = command.communicate(timeout=100)
    assert command.returncode == 0, err
    assert "1 cell: 1 finished" in out
    assert cell.result["parallel"]["processes"] == 2
    assert cell.result["sittings"] == 2
