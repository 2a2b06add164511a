"""Tables from result files that are written by hand."""

from __future__ import annotations

import csv
import io
import json

import pytest

from lozo_bench.config import By, Pick, TableConfig
from lozo_bench.errors import UserError
from lozo_bench.tables.cells import Run, Sweep
from lozo_bench.tables.show import FORMATS
from lozo_bench.tables.table import made

CONFIG = TableConfig(title="A table", rows=["method"], columns=["task"])


@pytest.fixture
def runs(tmp_path):
    """runs({("mezo", "sst2", "s1", "1e-3"): (dev metric, dev loss, test)}) -> a sweep's runs."""

    def make(results):
        return [
            run(tmp_path / f"cell{number}", *choices, result)
            for number, (choices, result) in enumerate(results.items())
        ]

    return make


def run(folder, method, task, seed, lr, result):
    choices = {"method": method, "task": task, "seed": seed, "optimizer.lr": lr}
    if result is not None:
        folder.mkdir(exist_ok=True)
        dev, loss, test = result
        metrics = {"test": {"accuracy": test, "loss": 9.0}}
        if dev is not None:
            metrics["dev"] = {"accuracy": dev, "loss": loss}
        (folder / "result.json").write_text(json.dumps({"metrics": metrics}))
    return Run(choices, folder, f"lozo-train method={method} seed={seed} optimizer.lr={lr}")


def table(runs, **changes):
    return made([Sweep(TableConfig(**{**vars(CONFIG), **changes}), runs, "lozo-train -m all")])


def entry(table, row="mezo", column="sst2"):
    return table.entries[(row,), (column,)]


GRID = {
    ("mezo", "sst2", "s1", "1e-3"): (0.9, 0.5, 0.10),
    ("mezo", "sst2", "s1", "1e-4"): (0.8, 0.4, 0.20),
    ("mezo", "sst2", "s2", "1e-3"): (0.2, 0.6, 0.30),
    ("mezo", "sst2", "s2", "1e-4"): (0.8, 0.9, 0.40),
}


def test_mean_and_population_deviation_are_of_what_was_chosen(runs):
    per_seed = entry(table(runs(GRID)))
    assert dict(per_seed.tests) == {"s1": 0.10, "s2": 0.40}
    assert per_seed.mean == pytest.approx(0.25)
    assert per_seed.std == pytest.approx(0.15)  # ddof 0; with ddof 1 it would be 0.212


def test_one_choice_for_all_seeds_is_another(runs):
    overall = entry(table(runs(GRID), select=Pick.overall))
    assert dict(overall.tests) == {"s1": 0.20, "s2": 0.40}
    assert set(overall.points.values()) == {"optimizer.lr=1e-4"}
    by_loss = entry(table(runs(GRID), select=Pick.overall, by=By.dev_loss))
    assert dict(by_loss.tests) == {"s1": 0.10, "s2": 0.30}


@pytest.mark.parametrize("pick", Pick)
@pytest.mark.parametrize("by", By)
def test_test_metrics_change_nothing_about_the_choice(runs, tmp_path, pick, by):
    before = entry(table(runs(GRID), select=pick, by=by)).points
    for path in tmp_path.glob("*/result.json"):
        result = json.loads(path.read_text())
        result["metrics"]["test"]["accuracy"] = 1 - result["metrics"]["test"]["accuracy"]
        path.write_text(json.dumps(result))
    again = [run(tmp_path / f"cell{n}", *choices, None) for n, choices in enumerate(GRID)]
    after = entry(table(again, select=pick, by=by))
    assert after.points == before
    assert set(after.tests.values()) <= {0.9, 0.8, 0.7, 0.6}


def test_missing_runs_are_told_and_the_rest_still_counts(runs):
    third = {("mezo", "sst2", "s3", lr): None for lr in ("1e-3", "1e-4")}
    found = table(runs({**GRID, **third}))
    assert len(entry(found).tests) == 2
    assert entry(found).seeds == 3
    assert [run.choices["seed"] for run in found.missing] == ["s3", "s3"]
    assert found.commands == ["lozo-train -m all"]
    text = FORMATS["text"](found)
    assert "25.0 (15.0) n=2*" in text
    assert "* part of the grid is missing" in text


def test_an_empty_table_has_a_dash_and_a_full_one_no_command(runs):
    empty = table(runs({("mezo", "sst2", "s1", "1e-3"): None}))
    assert "│ MeZO   │     - │" in FORMATS["text"](empty)
    full = table(runs({("lozo", "sst2", "s1", "1e-3"): (None, None, 0.5)}))
    assert full.missing == full.commands == []
    assert "│ LOZO   │  50.0 │" in FORMATS["text"](full)


def test_a_run_without_dev_metrics_is_shown_alone_and_not_chosen_among_others(runs):
    alone = {("icl", "sst2", "s1", "1e-3"): (None, None, 0.5)}
    assert entry(table(runs(alone)), "icl").mean == 0.5
    with pytest.raises(UserError, match="has no dev metrics"):
        table(runs({**alone, ("icl", "sst2", "s1", "1e-4"): (0.5, 0.5, 0.5)}))


def test_a_result_that_cannot_be_read_is_one_line(runs, tmp_path):
    made_runs = runs(GRID)
    (tmp_path / "cell0" / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"cell0/result.json: cannot be read; remove it"):
        table(made_runs)


def test_every_format_has_the_numbers_and_the_published_ones(runs):
    found = table(runs(GRID), published="mezo_opt13b")
    assert "| MeZO | 25.0 (15.0) |\n| published | 91.4 |" in FORMATS["md"](found)
    assert "MeZO & 25.0 (15.0) \\\\\npublished & 91.4 \\\\" in FORMATS["latex"](found)
    (row,) = csv.DictReader(io.StringIO(FORMATS["csv"](found)))
    assert row == {
        "method": "mezo", "task": "sst2", "mean": "0.25", "std": row["std"], "n": "2", "of": "2",
        "chosen": "s1: optimizer.lr=1e-3; s2: optimizer.lr=1e-4", "published": "91.4",
    }  # fmt: skip
    assert float(row["std"]) == pytest.approx(0.15)
    for name in ("text", "md", "latex"):
        assert "MeZO, arXiv 2305.17333, Table 1" in FORMATS[name](found)
        assert "ddof 0" in FORMATS[name](found)


def test_rules_that_cannot_be_met_are_one_line(runs):
    with pytest.raises(UserError, match="table: model is neither swept nor given"):
        table(runs(GRID), rows=["model"])
    with pytest.raises(UserError, match=r"no mezo_opt13 \(did you mean 'mezo_opt13b'\?\)"):
        table(runs(GRID), published="mezo_opt13")
    with pytest.raises(UserError, match="has no table"):
        table(runs(GRID), title="")
