"""Processes that were started differently say in what, and none of them begins."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import cells
import pytest
import torch
from omegaconf import OmegaConf

from lozo_bench.data.batch import BatchLayout, ScoringOptions
from lozo_bench.data.sets import Data
from lozo_bench.engine.sharing import ALONE
from lozo_bench.errors import UserError
from lozo_bench.parallel.team import Team
from lozo_bench.runs.outcome import Code
from lozo_bench.tasks.base import Encoded
from lozo_bench.training import same_everywhere
from lozo_bench.training.same_everywhere import require_same_config, require_same_parts


class Wire:
    """Stands for the connections of the second of two processes: the first one spoke before."""

    def __init__(self, first=None):
        self.first = first
        self.said = None

    def of_all(self, data):
        self.said = data
        return [self.first or data, data]


def as_processes(require, first, second):
    """Call ``require`` as the first process, and then as the second one."""
    wire = Wire()
    require(Team(0, 2, wire, ALONE), *first)
    require(Team(1, 2, Wire(wire.said), ALONE), *second)


def plain(*overrides):
    config = cells.config(*overrides)
    return OmegaConf.to_container(config, resolve=True, enum_to_str=True)


def row(*tokens, label=0):
    return Encoded(rows=(tokens,), answer=((1,),), label=label)


ROWS = [row(1, 2, 3), row(4, 5, 6, label=1)]
DATA = Data(ROWS, ROWS[:1], ROWS[1:], BatchLayout(0, (7, 8), ScoringOptions()))


def test_equal_processes_begin():
    model = torch.nn.Linear(3, 2)
    as_processes(require_same_parts, (DATA, model), (copy.deepcopy(DATA), copy.deepcopy(model)))
    as_processes(require_same_config, (plain(),), (plain(),))


@pytest.mark.parametrize("override", ["model.device=meta", "log_every=3", "task.data_dir=/scratch"])
def test_where_a_process_runs_and_what_it_shows_may_differ(override):
    as_processes(require_same_config, (plain(),), (plain(override),))


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.eps=0.5", "optimizer.eps is 0.001 in process 0 and 0.5 in process 1"),
        ("micro_batch_size=2", "micro_batch_size is None in process 0 and 2 in process 1"),
        ("parallel.split=candidates", "parallel.split is batch in process 0 and candidates in"),
        ("+optimizer.more=1", "optimizer.more is nothing in process 0 and 1 in process 1"),
    ],
)
def test_another_setting_is_named_with_both_values(override, line):
    with pytest.raises(UserError) as refused:
        as_processes(require_same_config, (plain(),), (plain(override),))
    assert line in str(refused.value)


def test_another_version_of_a_package_is_a_warning(monkeypatch, caplog):
    wire = Wire()
    require_same_config(Team(1, 2, wire, ALONE), plain())
    monkeypatch.setattr(same_everywhere, "versions", lambda: {"torch": "1.0"})
    with caplog.at_level(logging.WARNING):
        require_same_config(Team(0, 2, Wire(wire.said), ALONE), plain())
    assert "torch is " in caplog.text
    assert "1.0 in process 1" in caplog.text


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"train": ROWS[::-1]}, "data: train rows differ"),
        ({"dev": [row(1, 2, 3, label=1)]}, "data: dev rows differ"),
        ({"test": [replace(ROWS[1], answers=("no",))]}, "data: test rows differ"),
        ({"layout": replace(DATA.layout, label_ids=(8, 7))}, "data: label words differ"),
    ],
)
def test_other_rows_are_named(change, line):
    model = torch.nn.Linear(3, 2)
    with pytest.raises(UserError, match=line):
        as_processes(require_same_parts, (DATA, model), (replace(DATA, **change), model))


def test_one_other_bit_of_a_weight_is_another_model():
    model = torch.nn.Linear(3, 2)
    other = copy.deepcopy(model)
    other.weight.data.view(torch.int32)[1, 2] ^= 1
    with pytest.raises(UserError, match="model: weights differ"):
        as_processes(require_same_parts, (DATA, model), (DATA, other))


def test_processes_with_other_settings_all_stop_in_one_line(tmp_path):
    port = cells.free_port()
    other = ["optimizer.lr=0.5", "seed.value=7", "batch_size=4"]
    processes = [
        cells.start(tmp_path / f"{rank}", overrides, cells.place(rank, 2, port))
        for rank, overrides in enumerate([[], other])
    ]
    for rank, process in enumerate(processes):
        process.join(60)
        log = cells.log(tmp_path / f"{rank}")
        assert process.exitcode == Code.bad_input, log
        [line] = log.splitlines()
        assert "optimizer.lr is 0.0001 in process 0 and 0.5 in process 1" in line
        assert "seed.value is 0 in process 0 and 7 in process 1" in line
        assert "batch_size is 8 in process 0 and 4 in process 1" in line
