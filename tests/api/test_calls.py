"""Runs, sweeps and their results from Python, as in a notebook."""

from __future__ import annotations

import pytest

import lozo_bench
from lozo_bench.errors import UserError
from lozo_bench.runs.status import CellState, statuses_below

FEW = ["tracking=files", "steps=3", "eval_every=3", "batch_size=4", "task.source.test=20"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_gives_its_result_and_is_not_made_twice():
    result = lozo_bench.run(["optimizer=lozo", *FEW])
    assert result.status == "finished"
    assert result.test == result.metrics["test"]["accuracy"]
    assert [row["step"] for row in result.history() if "loss" in row] == [3]
    assert lozo_bench.run(["optimizer=lozo", *FEW]) == result


def test_a_wrong_word_is_one_line_and_leaves_no_run(tmp_path):
    with pytest.raises(UserError, match="did you mean 'lozo'"):
        lozo_bench.run(["optimizer=loxo"])
    with pytest.raises(UserError, match=r"^steps: given 0; allowed"):
        lozo_bench.run(["steps=0"])
    with pytest.raises(UserError, match=r"^estimate: given in a call"):
        lozo_bench.run(["++estimate.enabled=true"])
    assert not list(tmp_path.iterdir())


def test_why_a_run_failed_is_raised_and_kept_in_its_folder(tmp_path):
    with pytest.raises(UserError, match="loss") as raised:
        lozo_bench.run(["optimizer.lr=1e38", "engine.max_bad_steps=0", *FEW])
    (cell,) = statuses_below(tmp_path)
    assert cell.state == CellState.failed
    assert str(raised.value) in cell.note


def test_the_table_of_results_has_a_column_for_what_differs():
    for lr in ("1e-4", "1e-3"):
        lozo_bench.run([*FEW, f"optimizer.lr={lr}"])
    table = lozo_bench.results()
    assert sorted(table["lr"]) == [1e-4, 1e-3]
    assert set(table["method"]) == {"lozo"}
    assert table["test/accuracy"].between(0, 1).all()
    assert list(table["forwards"]) == [6, 6]


def test_without_runs_there_is_no_table(tmp_path):
    with pytest.raises(UserError, match="no runs in it"):
        lozo_bench.results(tmp_path)


def test_a_sweep_gives_the_results_of_its_runs_in_order():
    found = lozo_bench.sweep(["optimizer.lr=1e-4,1e38", "engine.max_bad_steps=0", *FEW])
    assert [result.status for result in found] == ["finished", "failed"]
    assert [result.config["optimizer"]["lr"] for result in found] == [1e-4, 1e38]
    with pytest.raises(UserError, match=r"the run is failed: .*loss"):
        found[1].test  # noqa: B018


def test_a_sweep_with_a_wrong_word_is_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean 'lozo'"):
        lozo_bench.sweep(["optimizer=loxo", "seed=s0,s1"])
    assert not list(tmp_path.iterdir())
