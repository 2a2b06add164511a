"""Every experiment runs from one end to the other at a tiny scale, and fills its table.

Experiments of the same models and data are one test, so that the cells they share run once.
"""

from __future__ import annotations

import copy
from collections import defaultdict

import pytest
from omegaconf import OmegaConf, open_dict

from lozo_bench.run import run
from lozo_bench.runs.outcome import RESULT
from lozo_bench.tables.cells import Sweep, configs, planned
from lozo_bench.tables.table import made
from lozo_bench.train import CONF

# These differ from others that run in full by a number, a model's name or the rows' origin.
NARROWED = {
    "roberta_k512": ["task=sst2_kshot"],
    "opt30b_66b": ["model=opt_66b", "task=wsc,squad"],
    "superglue": ["task=wsc"],
}


def groups():
    """Names of experiments that have a table, without the paper in front -> the experiments."""
    found = defaultdict(list)
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        if OmegaConf.select(OmegaConf.load(path), "table.title"):
            found[path.stem.removeprefix("lozo_").removeprefix("mezo_")].append(path.stem)
    return dict(found)


def run_all(overrides):
    """Run every cell that has no result yet, in this process; the sweep."""
    runs = []
    table, _, composed = planned(overrides)
    for cell, config in composed:
        runs.append(cell)
        if not (cell.folder / RESULT).exists():
            cell.folder.mkdir(parents=True)
            alone = copy.deepcopy(config)
            with open_dict(alone):
                del alone["hydra"]
            run(alone, cell.folder)
    return Sweep(table, runs, "")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", groups())
def test_every_cell_of_a_table_runs_and_fills_it(group, tmp_path):
    common = [
        "scale=tiny",
        "rank=r2",
        "eval_every=2",
        f"hydra.sweep.dir={tmp_path}",
        *NARROWED.get(group, []),
    ]
    for experiment in groups()[group]:
        swept = [text for text in common if text != "rank=r2" or experiment != "lozo_ablation"]
        with configs(CONF):
            table = made([run_all([f"experiment={experiment}", *swept])])
        assert table.missing == []
        assert len(table.entries) == len(table.rows) * len(table.columns)
        assert all(len(entry.tests) == entry.seeds for entry in table.entries.values())
