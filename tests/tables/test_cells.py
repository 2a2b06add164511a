"""`sweep` composes runs as Hydra does, and gives each run a command that runs it alone."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra import compose
from hydra.core.hydra_config import HydraConfig

from lozo_bench.config.paths import CONF
from lozo_bench.config.task_list import with_task_lists
from lozo_bench.tables.cells import choices_of_runs, configs, sweep
from lozo_bench.tables.grids import over_grids

NARROW = ["experiment=lozo_roberta_k16", "method=lozo,ft", "task=sst2_kshot", "seed=s13,s42"]


@pytest.fixture(autouse=True)
def composing():
    with configs(CONF):
        yield


def folder_of(command):
    """Return the folder in which Hydra would put the run of a command."""
    overrides = with_task_lists(shlex.split(command)[1:])
    config = compose("config", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    return Path(config.hydra.run.dir)


@pytest.mark.parametrize(
    "overrides",
    [
        [*NARROW, "scale=tiny", "optimizer.lr=1e-4,0.5", "rank=r1,r8"],
        ["experiment=lozo_ablation", "rank=r1", "optimizer.nu=1,50", "++engine.max_rank=8"],
        ["experiment=lozo_opt13b", "method=lozo", "task=wsc", "grid=lozo_opt", "optimizer.nu=7"],
        [
            "experiment=smoke",
            "task=[reviews,topics],[topics,entailment]",
            "seed=s0",
            "model=tiny_opt",
        ],
    ],
    ids=["groups and values", "single", "grid", "several tasks"],
)
def test_every_run_has_the_folder_that_its_own_command_would_use(overrides):
    """The folder's name ends in the digest, so equal folders imply equal configs."""
    runs = sweep(overrides).runs
    assert len({run.folder for run in runs}) == len(runs)
    for run in (runs[0], runs[1], runs[-1]):
        assert folder_of(run.command) == run.folder


def test_overrides_narrow_a_sweep_and_a_grid_widens_it():
    assert len(sweep(NARROW).runs) == 4
    assert len(sweep(["experiment=lozo_ablation"]).runs) == 20
    narrow = ["experiment=lozo_opt13b", "method=lozo", "task=sst2", "grid=lozo_opt"]
    assert len(sweep(narrow).runs) == 2 * 2 * 3 * 2


def test_commands_omit_overrides_that_concern_only_the_table_or_the_sweep():
    found = sweep([*NARROW, "table.select=overall", "hydra/launcher=local", "hydra.sweep.dir=/x"])
    command = ["lozo-train", "method=lozo", "task=sst2_kshot", "seed=s13", NARROW[0]]
    alone = shlex.split(found.runs[0].command)
    assert set(alone) == {*command, "hydra.sweep.dir=/x"}
    assert "table" not in found.command
    assert "hydra/launcher=local" in found.command
    assert found.runs[0].folder.parts[:2] == ("/", "x")


def test_over_grids_makes_one_sweep_for_each_row_and_grid():
    overrides = ["experiment=lozo_opt13b", "method=mezo,zero_shot", "task=sst2,rte,squad"]
    assert over_grids(overrides, *choices_of_runs(overrides)) == [
        ["experiment=lozo_opt13b", "method=mezo", "task=sst2,rte", "grid=mezo_opt"],
        ["experiment=lozo_opt13b", "method=mezo", "task=squad", "grid=mezo_opt_answers"],
        ["experiment=lozo_opt13b", "method=zero_shot", "task=sst2,rte,squad"],
    ]


def test_the_title_says_if_the_rows_are_made_up():
    narrow = ["experiment=lozo_ablation", "rank=r1", "optimizer.nu=1"]
    assert "made-up" in sweep([*narrow, "scale=tiny"]).table.title
    assert "made-up" not in sweep(narrow).table.title
