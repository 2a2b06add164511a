"""Several processes make the same run as one, and send next to nothing for it."""

from __future__ import annotations

from pathlib import Path

import cells
import pytest
import torch
from methods import STEPPING, ZEROTH_ORDER

from lozo_bench.runs.journal import read

pytestmark = pytest.mark.timeout(400)  # several processes share the cores

# Every optimizer with one pair of split and number of processes, in turn; those that ask in a way
# of their own with two, one with all four. A gradient has no candidates: see test_team.py.
PAIRS = [("batch", 2), ("candidates", 4), ("batch", 4), ("candidates", 2)]
ASKING = {
    "lozo": PAIRS,
    "lozo_per_example": PAIRS[:2],
    "mezo_scaled": PAIRS[:2],
    "forward_grad": PAIRS[:2],
}
SHARED = [
    (name, split, processes)
    for i, name in enumerate(STEPPING)
    for split, processes in (
        ASKING.get(name, [PAIRS[i % 2]]) if name in ZEROTH_ORDER else [("batch", 2)]
    )
]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process, by optimizer; each made once."""
    made: dict[str, Path] = {}

    def folder(optimizer):
        if optimizer not in made:
            made[optimizer] = tmp_path_factory.mktemp(optimizer)
            assert cells.run(made[optimizer], f"optimizer={optimizer}") == [0]
        return made[optimizer]

    return folder


def told(folder):
    """Everything the optimizer was told, in one vector."""
    steps = read((folder / "journal.bin").read_bytes()).steps
    return torch.cat([answer.flatten() for step in steps for answer in step])


@pytest.mark.parametrize(("optimizer", "split", "processes"), SHARED)
def test_processes_together_make_the_run_of_one(tmp_path, alone, optimizer, split, processes):
    options = [f"optimizer={optimizer}", f"parallel.split={split}"]
    if optimizer not in ZEROTH_ORDER:
        options.append("micro_batch_size=3")  # gradients of a part of 3 and one of 1 in each
    codes = cells.run(tmp_path, *options, processes=processes)
    assert codes == [0] * processes, cells.log(tmp_path)
    one, many = cells.result(alone(optimizer)), cells.result(tmp_path)
    assert many["parallel"]["processes"] == processes
    for key in ("forwards", "tokens", "best_step", "bad_steps"):
        assert many[key] == one[key]
    for name, metrics in one["metrics"].items():
        assert many["metrics"][name]["accuracy"] == metrics["accuracy"]
        assert many["metrics"][name]["loss"] == pytest.approx(metrics["loss"], abs=1e-4)
    if optimizer in ZEROTH_ORDER:
        torch.testing.assert_close(told(tmp_path), told(alone(optimizer)), rtol=1e-3, atol=2e-5)
        # Three float64 for each of 20 rows, in each of five evaluations.
        sent = many["parallel"]["sent_bytes"] - 5 * 20 * 3 * 8
        assert 0 < sent / many["steps"] <= 64
