"""The default launcher: the cells of a sweep in this process, and the table at the sweep's end."""

from __future__ import annotations

import re

from lozo_bench.launch import serial
from lozo_bench.launch.serial import Turns

SHORT = [
    "experiment=smoke", "steps=1", "eval_every=1", "model.device=cpu", "task.source.train=16",
    "task.source.dev=8", "task.source.test=8", "tracking=files",
]  # fmt: skip


def test_a_sweep_says_which_cell_runs_and_ends_with_its_table_and_failures(command, tmp_path):
    code, out, err = command("-m", "optimizer.eps=1e-3,-1", *SHORT)
    assert code == 1
    assert re.search(r"^cell 1/2: lozo-r2-s0-\w+ \(eps=1e-3\)$", err, re.MULTILINE)
    assert re.search(r"^cell 2/2: \S+ \(eps=-1\), sweep ETA \d:\d\d:\d\d$", err, re.MULTILINE)
    assert "HYDRA" not in err
    assert "Error executing job" not in err
    table = out[out.index("\noutputs/smoke\n") :]
    assert re.search(r"│ 1e-3 │ +1 │ 0\.\d+ \* │ 0\.\d+ │", table)
    assert "│ -1   │ 0 of 1 │" in table
    assert "2 cells: 1 finished, 1 failed" in table
    assert re.search(r"  \S+ \(eps=-1\): optimizer.eps: given -1; allowed: a number > 0\n", table)
    assert (tmp_path / "outputs/smoke/summary.md").read_text().startswith("**outputs/smoke**")
    assert "0.001" in (tmp_path / "outputs/smoke/summary.csv").read_text()


def test_the_kept_table_has_the_runs_of_all_commands(command, tmp_path):
    for lr in ("1e-3", "1e-4"):
        code, out, _ = command("-m", f"optimizer.lr={lr}", *SHORT)
        assert code == 0
        assert "1 cell: 1 finished" in out
    kept = (tmp_path / "outputs/smoke/summary.csv").read_text()
    assert "0.001" in kept
    assert "0.0001" in kept


def test_the_time_that_is_left_counts_only_cells_that_ran(monkeypatch, capfd):
    clock = iter([0.0, 10.0, 10.0, 10.0, 40.0])
    monkeypatch.setattr(serial.time, "monotonic", lambda: next(clock))
    turns = Turns(4)
    turns.begin("a")
    turns.end(ran=True)
    turns.begin("b")
    turns.end(ran=False)
    turns.begin("c")
    assert capfd.readouterr().err.splitlines() == [
        "cell 1/4: a",
        "cell 2/4: b, sweep ETA 0:00:30",
        "cell 3/4: c, sweep ETA 0:00:20",
    ]
