"""The table of a sweep, from its runs' folders: means over seeds by what sets the runs apart."""

from __future__ import annotations

import csv
import io
import json

import pytest

from lozo_bench.tables.summary import FORMATS, summarize, unfinished

LR = "optimizer.lr"


@pytest.fixture
def runs(tmp_path):
    """A function that writes results: runs(({"seed": "s0"}, dev, test), ...) -> the runs."""

    def write(*results, metric="accuracy"):
        made = []
        for number, (choices, dev, test) in enumerate(results):
            folder = tmp_path / f"run{number}"
            folder.mkdir()
            if test is not None:
                sets = {"dev": {metric: dev, "loss": 1.0}, "test": {metric: test, "loss": 1.0}}
                (folder / "result.json").write_text(json.dumps({"metrics": sets}))
            made.append((choices, folder))
        return made

    return write


def grid(*points, key=LR):
    """The results of two seeds at each point: (value, dev, dev, test, test)."""
    return [
        ({key: value, "seed": f"s{seed}"}, (dev0, dev1)[seed], (test0, test1)[seed])
        for value, dev0, dev1, test0, test1 in points
        for seed in (0, 1)
    ]


def test_the_best_mean_on_dev_is_marked_and_not_the_best_on_test(runs, tmp_path):
    made = runs(*grid(("1e-3", 0.5, 0.9, 0.5, 0.6), ("1e-4", 0.6, 0.7, 0.9, 0.9)))
    lines = FORMATS["text"](summarize("lrs", made)).splitlines()
    assert lines[0] == "lrs"
    assert "│ 1e-3 │    2 │ 0.7000 (0.2000) * │ 0.5500 (0.0500) │" in lines
    assert "│ 1e-4 │    2 │   0.6500 (0.0500) │ 0.9000 (0.0000) │" in lines
    assert lines[-1] == f"best run by dev: {tmp_path / 'run1'}"


def test_of_rows_and_runs_that_are_equally_good_the_lowest_loss_is_the_best(runs):
    made = runs(*grid(("3e-3", 0.9, 0.8, 0.5, 0.5), ("1e-2", 0.9, 0.8, 0.6, 0.6)))
    for (_, folder), loss in zip(made, (0.4, 0.4, 0.3, 0.2), strict=True):
        result = json.loads((folder / "result.json").read_text())
        result["metrics"]["dev"]["loss"] = loss
        (folder / "result.json").write_text(json.dumps(result))
    for given in (made, made[::-1]):
        summary = summarize("lrs", given)
        assert [row.values[LR] for row in summary.rows if row.best] == ["1e-2"]
        assert FORMATS["text"](summary).endswith(f"best run by dev: {made[2][1]}")


def test_a_row_with_missing_runs_is_not_the_best_beside_a_complete_one(runs):
    made = runs(*grid(("1e-3", 1.0, 1.0, 1.0, None), ("1e-4", 0.5, 0.5, 0.5, 0.5)))
    summary = summarize("lrs", made)
    assert [row.best for row in summary.rows] == [False, True]
    assert "1 of 2" in FORMATS["md"](summary)
    assert unfinished(summary) == "1 of 4 runs has no result"


def test_each_task_has_a_best_row_of_its_own_and_of_perplexities_the_lowest(runs):
    results = [
        ({"task": task, LR: lr}, dev, 1.0)
        for task, devs in {"a": (3.0, 2.0), "b": (5.0, 6.0)}.items()
        for lr, dev in zip(("1e-3", "1e-4"), devs, strict=True)
    ]
    summary = summarize("two tasks", runs(*results, metric="perplexity"))
    assert [row.best for row in summary.rows] == [False, True, True, False]
    text = FORMATS["text"](summary)
    assert "dev perplexity" in text
    assert "* the best on the dev rows, for each task" in text
    assert "best run" not in text


def test_the_csv_has_unrounded_numbers(runs):
    summary = summarize("lrs", runs(*grid(("1e-3", 0.1, 0.2, 0.3, 0.4))))
    (row,) = csv.DictReader(io.StringIO(FORMATS["csv"](summary)))
    assert float(row["mean_dev"]) == pytest.approx(0.15)
    assert (row["runs"], row["finished"], row["metric"]) == ("2", "2", "accuracy")


def test_a_value_cannot_break_the_form_of_a_table(runs):
    summary = summarize("prompts", runs(*grid((r"a|b\c", 0.1, 0.2, 0.3, 0.4), ("d", 0, 0, 0, 0))))
    assert r"| a\|b\c | 2 |" in FORMATS["md"](summary)
    assert r"a|b\textbackslash{}c & 2 &" in FORMATS["latex"](summary)


def test_one_run_has_no_standard_deviation(runs):
    summary = summarize("one", runs(({"seed": "s0"}, 0.5, 0.5), ({"seed": "s1"}, None, None)))
    (row,) = csv.DictReader(io.StringIO(FORMATS["csv"](summary)))
    assert (row["mean_test"], row["std_test"], row["std_dev"]) == ("0.5", "", "")
