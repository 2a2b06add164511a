"""Several processes make the same run as one process and exchange only a few bytes."""

from __future__ import annotations

from pathlib import Path

import cells
import pytest
import torch
from methods import STEPPING, ZEROTH_ORDER

from lozo_bench.runs.journal import read

pytestmark = pytest.mark.timeout(400)  # several processes share the cores

# Each optimizer is run with one split, in turn. Those that ask for losses in their own way get
# both, and one gets both with two and with four processes. A gradient cannot be split by
# candidates: see test_team.py.
PAIRS = [("batch", 2), ("candidates", 2), ("batch", 4), ("candidates", 4)]
FEW = ["steps=12", "eval_every=4"]
PAIRS_OF = {
    "lozo": PAIRS,
    "lozo_per_example": PAIRS[:2],
    "mezo_scaled": PAIRS[:2],
    "forward_grad": PAIRS[:2],
}
SHARED = [
    (name, split, processes)
    for i, name in enumerate(STEPPING)
    for split, processes in (
        PAIRS_OF.get(name, [PAIRS[i % 2]]) if name in ZEROTH_ORDER else [("batch", 2)]
    )
]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Return the folder of a single process's run by optimizer; each is run once."""
    folders: dict[str, Path] = {}

    def folder(optimizer):
        if optimizer not in folders:
            folders[optimizer] = tmp_path_factory.mktemp(optimizer)
            assert cells.run(folders[optimizer], f"optimizer={optimizer}", *FEW) == [0]
        return folders[optimizer]

    return folder


SEARCH = [
    "method=c_lora", "model=tiny_roberta", "optimizer.intrinsic_dim=8", "optimizer.popsize=6",
    "optimizer.budget=54", "task.source.train=9", "task.source.dev=8", "task.source.test=8",
]  # fmt: skip


@pytest.fixture(scope="module")
def single_search(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    assert cells.run(folder, *SEARCH) == [0], cells.log(folder)
    return folder


def recorded(folder):
    """Return all numbers in the journal as one vector."""
    steps = read((folder / "journal.bin").read_bytes()).steps
    return torch.cat([answer.flatten() for step in steps for answer in step])


@pytest.mark.parametrize(("optimizer", "split", "processes"), SHARED)
def test_several_processes_make_the_run_of_one(tmp_path, single, optimizer, split, processes):
    options = [f"optimizer={optimizer}", f"parallel.split={split}", *FEW]
    if optimizer not in ZEROTH_ORDER:
        options.append("micro_batch_size=3")  # each process has micro-batches of 3 and 1
    codes = cells.run(tmp_path, *options, processes=processes)
    assert codes == [0] * processes, cells.log(tmp_path)
    one, many = cells.result(single(optimizer)), cells.result(tmp_path)
    assert many["parallel"]["processes"] == processes
    for key in ("forwards", "tokens", "best_step", "bad_steps"):
        assert many[key] == one[key]
    for name, metrics in one["metrics"].items():
        assert many["metrics"][name]["accuracy"] == metrics["accuracy"]
        assert many["metrics"][name]["loss"] == pytest.approx(metrics["loss"], abs=1e-4)
    if optimizer in ZEROTH_ORDER:
        torch.testing.assert_close(
            recorded(tmp_path), recorded(single(optimizer)), rtol=1e-3, atol=2e-5
        )
        # An evaluation sends three float64 for each of 20 rows, in each of five evaluations.
        sent = many["parallel"]["sent_bytes"] - 5 * 20 * 3 * 8
        assert 0 < sent / many["steps"] <= 64


@pytest.mark.parametrize("split", ["batch", "candidates"])
def test_two_processes_search_as_one(tmp_path, single_search, split):
    """The statistics of the layers' inputs are those of all rows, though each has half of them."""
    codes = cells.run(tmp_path, *SEARCH, f"parallel.split={split}", processes=2)
    assert codes == [0, 0], cells.log(tmp_path)
    one, two = cells.result(single_search), cells.result(tmp_path)
    assert two["parallel"]["processes"] == 2
    for key in ("steps", "forwards", "tokens", "best_step", "bad_steps"):
        assert two[key] == one[key]
    for name, metrics in one["metrics"].items():
        assert two["metrics"][name]["accuracy"] == metrics["accuracy"]
        assert two["metrics"][name]["loss"] == pytest.approx(metrics["loss"], abs=1e-4)
    torch.testing.assert_close(recorded(tmp_path), recorded(single_search), rtol=1e-3, atol=2e-5)
    assert (tmp_path / "search.svg").exists()
    assert [row["layer"] for row in cells.rows(tmp_path) if "layer" in row] == [0, 1, 2] * 3


BILEVEL = [
    "optimizer=bilevel_zofo", "tuning=two_level_lora", "optimizer.inner_steps=3", "steps=8",
    "eval_every=4", "optimizer.lr=1e-5", "optimizer.lambda_=10", "micro_batch_size=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def single_bilevel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bilevel")
    assert cells.run(folder, *BILEVEL) == [0], cells.log(folder)
    return folder


def test_two_processes_make_lower_and_upper_steps_as_one(tmp_path, single_bilevel):
    codes = cells.run(tmp_path, *BILEVEL, processes=2)
    assert codes == [0, 0], cells.log(tmp_path)
    one, two = cells.result(single_bilevel), cells.result(tmp_path)
    for key in ("steps", "forwards", "backwards", "tokens", "best_step", "bad_steps"):
        assert two[key] == one[key]
    for name, metrics in one["metrics"].items():
        for key, value in metrics.items():
            assert two["metrics"][name][key] == pytest.approx(value, abs=1e-4)
    torch.testing.assert_close(recorded(tmp_path), recorded(single_bilevel), rtol=1e-3, atol=2e-5)
