"""The runs of a sweep: as Hydra itself composes them, each with a command that runs it alone."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra import compose
from hydra.core.hydra_config import HydraConfig

from lozo_bench.tables.cells import configs, sweep
from lozo_bench.tables.grids import over_grids
from lozo_bench.train import CONF

NARROW = ["experiment=lozo_roberta_k16", "method=lozo,ft", "task=sst2_kshot", "seed=s13,s42"]


@pytest.fixture(autouse=True)
def composing():
    with configs(CONF):
        yield


def folder_of(command):
    """Where Hydra says that a command's run is."""
    config = compose("config", shlex.split(command)[1:], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    return Path(config.hydra.run.dir)


@pytest.mark.parametrize(
    "overrides",
    [
        [*NARROW, "scale=tiny", "optimizer.lr=1e-4,0.5", "rank=r1,r8"],
        ["experiment=lozo_ablation", "rank=r1", "optimizer.nu=1,50", "++engine.max_rank=8"],
        ["experiment=lozo_opt13b", "method=lozo", "task=wsc", "grid=lozo_opt", "optimizer.nu=7"],
    ],
    ids=["groups and values", "single", "grid"],
)
def test_every_run_is_where_its_own_command_would_put_it(overrides):
    """Folders end in the digest, so that equal folders are equal configs."""
    runs = sweep(overrides).runs
    assert len({run.folder for run in runs}) == len(runs)
    for run in (runs[0], runs[1], runs[-1]):
        assert folder_of(run.command) == run.folder


def test_what_is_typed_narrows_a_sweep_and_a_grid_widens_it():
    assert len(sweep(NARROW).runs) == 4
    assert len(sweep(["experiment=lozo_ablation"]).runs) == 20
    narrow = ["experiment=lozo_opt13b", "method=lozo", "task=sst2", "grid=lozo_opt"]
    assert len(sweep(narrow).runs) == 2 * 2 * 3 * 2


def test_commands_leave_out_what_is_only_for_the_table_or_only_for_the_sweep():
    told = sweep([*NARROW, "table.select=overall", "hydra/launcher=local", "hydra.sweep.dir=/x"])
    command = ["lozo-train", "method=lozo", "task=sst2_kshot", "seed=s13", NARROW[0]]
    alone = shlex.split(told.runs[0].command)
    assert set(alone) == {*command, "hydra.sweep.dir=/x"}
    assert "table" not in told.command
    assert "hydra/launcher=local" in told.command
    assert told.runs[0].folder.parts[:2] == ("/", "x")


def test_each_row_over_its_grid_is_one_command_a_grid():
    overrides = ["experiment=lozo_opt13b", "method=mezo,zero_shot", "task=sst2,rte,squad"]
    assert over_grids(overrides, sweep(overrides)) == [
        ["experiment=lozo_opt13b", "method=mezo", "task=sst2,rte", "grid=mezo_opt"],
        ["experiment=lozo_opt13b", "method=mezo", "task=squad", "grid=mezo_opt_answers"],
        ["experiment=lozo_opt13b", "method=zero_shot", "task=sst2,rte,squad"],
    ]


def test_a_table_of_made_up_rows_says_so():
    narrow = ["experiment=lozo_ablation", "rank=r1", "optimizer.nu=1"]
    assert "made-up" in sweep([*narrow, "scale=tiny"]).table.title
    assert "made-up" not in sweep(narrow).table.title
