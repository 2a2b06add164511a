"""Tables built from hand-written result files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import pytest

from lozo_bench.config.schema import By, Pick, Shown, TableConfig
from lozo_bench.errors import UserError
from lozo_bench.tables.cells import Run, Sweep
from lozo_bench.tables.published import LOGGED, PUBLISHED, Published, read_published
from lozo_bench.tables.show import FORMATS
from lozo_bench.tables.table import build_table

CONFIG = TableConfig(title="A table", rows=["method"], columns=["task"])


@pytest.fixture
def runs(tmp_path):
    """A function that returns a sweep's runs and writes their results.

    It is called as runs({("mezo", "sst2", "s1", "1e-3"): (dev metric, dev loss, test)}).
    """

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
    return build_table(
        [Sweep(TableConfig(**{**vars(CONFIG), **changes}), runs, "lozo-train -m all")]
    )


def entry(table, row="mezo", column="sst2"):
    return table.entries[(row,), (column,)]


GRID = {
    ("mezo", "sst2", "s1", "1e-3"): (0.9, 0.5, 0.10),
    ("mezo", "sst2", "s1", "1e-4"): (0.8, 0.4, 0.20),
    ("mezo", "sst2", "s2", "1e-3"): (0.2, 0.6, 0.30),
    ("mezo", "sst2", "s2", "1e-4"): (0.8, 0.9, 0.40),
}


def test_mean_and_population_deviation_are_over_the_selected_runs(runs):
    per_seed = entry(table(runs(GRID)))
    assert dict(per_seed.tests) == {"s1": 0.10, "s2": 0.40}
    assert per_seed.mean == pytest.approx(0.25)
    assert per_seed.std == pytest.approx(0.15)  # ddof 0; with ddof 1 it would be 0.212


def test_one_point_for_all_seeds_can_differ_from_a_point_per_seed(runs):
    overall = entry(table(runs(GRID), select=Pick.overall))
    assert dict(overall.tests) == {"s1": 0.20, "s2": 0.40}
    assert set(overall.points.values()) == {"optimizer.lr=1e-4"}
    by_loss = entry(table(runs(GRID), select=Pick.overall, by=By.dev_loss))
    assert dict(by_loss.tests) == {"s1": 0.10, "s2": 0.30}


@pytest.mark.parametrize("pick", Pick)
@pytest.mark.parametrize("by", By)
def test_test_metrics_do_not_influence_the_selection(runs, tmp_path, pick, by):
    before = entry(table(runs(GRID), select=pick, by=by)).points
    for path in tmp_path.glob("*/result.json"):
        result = json.loads(path.read_text())
        result["metrics"]["test"]["accuracy"] = 1 - result["metrics"]["test"]["accuracy"]
        path.write_text(json.dumps(result))
    again = [run(tmp_path / f"cell{n}", *choices, None) for n, choices in enumerate(GRID)]
    after = entry(table(again, select=pick, by=by))
    assert after.points == before
    assert set(after.tests.values()) <= {0.9, 0.8, 0.7, 0.6}


def test_missing_runs_are_listed_and_the_other_runs_are_shown(runs):
    third = {("mezo", "sst2", "s3", lr): None for lr in ("1e-3", "1e-4")}
    found = table(runs({**GRID, **third}))
    assert len(entry(found).tests) == 2
    assert entry(found).seeds == 3
    assert [run.choices["seed"] for run in found.missing] == ["s3", "s3"]
    assert found.commands == ["lozo-train -m all"]
    text = FORMATS["text"](found)
    assert "25.0 (15.0) n=2*" in text
    assert "* part of the grid is missing" in text


def test_an_empty_entry_is_a_dash_and_a_full_table_has_no_commands(runs):
    empty = table(runs({("mezo", "sst2", "s1", "1e-3"): None}))
    assert "│ MeZO   │     - │" in FORMATS["text"](empty)
    full = table(runs({("lozo", "sst2", "s1", "1e-3"): (None, None, 0.5)}))
    assert full.missing == full.commands == []
    assert "│ LOZO   │  50.0 │" in FORMATS["text"](full)


def test_a_run_without_dev_metrics_is_shown_but_cannot_be_compared_with_others(runs):
    alone = {("icl", "sst2", "s1", "1e-3"): (None, None, 0.5)}
    assert entry(table(runs(alone)), "icl").mean == 0.5
    with pytest.raises(UserError, match="has no dev metrics"):
        table(runs({**alone, ("icl", "sst2", "s1", "1e-4"): (0.5, 0.5, 0.5)}))


@pytest.mark.parametrize("text", ["{", '{"metrics": {"test": {}}}', '{"metrics": 1}', "[" * 10**5])
def test_a_run_with_a_damaged_result_is_missing_and_the_others_are_shown(runs, tmp_path, text):
    made_runs = runs(GRID)
    (tmp_path / "cell0" / "result.json").write_text(text)
    found = table(made_runs)
    assert [run.folder.name for run in found.missing] == ["cell0"]
    assert len(entry(found).tests) == 2


def test_every_format_shows_our_numbers_and_the_published_ones(runs):
    found = table(runs(GRID), published="mezo_opt13b")
    assert "| MeZO | 25.0 (15.0) |\n| published | 91.4 |" in FORMATS["md"](found)
    assert "MeZO & 25.0 (15.0) \\\\\npublished & 91.4 \\\\" in FORMATS["latex"](found)
    (row,) = csv.DictReader(io.StringIO(FORMATS["csv"](found)))
    assert row == {
        "method": "mezo", "task": "sst2", "mean_percent": "25.0", "std_percent": row["std_percent"],
        "n": "2", "of": "2", "chosen": "s1: optimizer.lr=1e-3; s2: optimizer.lr=1e-4",
        "published_percent": "91.4",
    }  # fmt: skip
    assert float(row["std_percent"]) == pytest.approx(15)
    for name in ("text", "md", "latex"):
        assert "MeZO, arXiv 2305.17333, Table 1" in FORMATS[name](found)
        assert "ddof 0" in FORMATS[name](found)


def test_logs_of_the_authors_are_not_called_published(runs):
    """They are runs that the authors logged, not cells of a table that the paper prints."""
    found = table(runs({("hetero_lora", "mrpc_head", "s1", "1e-3"): (0.9, 0.5, 0.8)}))
    logged = Published("x", LOGGED, {(("hetero_lora",), ("mrpc_head",)): "84.1"})
    found = dataclasses.replace(found, published=logged)
    assert "published" not in "".join(FORMATS[name](found) for name in FORMATS)
    assert "| authors' logs | 84.1 |" in FORMATS["md"](found)
    assert "authors' logs: x" in FORMATS["text"](found)
    assert "authors_logs_percent" in FORMATS["csv"](found)
    logs = [path.stem for path in PUBLISHED.glob("hetero_*.csv")]
    assert logs
    assert {read_published(name, 1).label for name in logs} == {LOGGED}
    assert read_published("mezo_opt13b", 1).label == "published"


def test_a_perplexity_is_not_a_percentage(runs, tmp_path):
    made = runs({("mezo", "alpaca", seed, "1e-3"): (0.9, 0.5, 0.1) for seed in ("s1", "s2")})
    for number, value in enumerate((6.5, 6.7)):
        metrics = {"dev": {"perplexity": 7.0, "loss": 1.9}}
        metrics["test"] = {"perplexity": value, "loss": 1.8}
        text = json.dumps({"metrics": metrics})
        (tmp_path / f"cell{number}" / "result.json").write_text(text)
    found = table(made)
    assert "| MeZO | 6.600 (0.100) |" in FORMATS["md"](found)
    assert "Perplexity: mean" in FORMATS["md"](found)
    assert "mean_perplexity,std_perplexity" in FORMATS["csv"](found)


def test_a_table_can_show_what_its_runs_cost(runs, tmp_path):
    """An older result without the number counts as missing."""
    made = runs({("mezo", "sst2", seed, "1e-3"): (0.9, 0.5, 0.1) for seed in ("s1", "s2", "s3")})
    for number, (memory, seconds) in enumerate([(2**30, 90.0), (2**31, 150.0)]):
        path = tmp_path / f"cell{number}" / "result.json"
        costs = {"peak_memory_bytes": memory, "train_s": seconds, "step_ms_median": 1e3 * seconds}
        costs |= {"forwards": 4, "backwards": 2 * number, "queries": 32}
        path.write_text(json.dumps({**json.loads(path.read_text()), **costs}))
    memory = table(made, show=Shown.memory, published="mezo_opt13b")
    assert "| MeZO | 1.50 (0.50) n=2 |" in FORMATS["md"](memory)
    assert "Peak memory in GiB: mean" in FORMATS["md"](memory)
    assert "published" not in FORMATS["md"](memory)
    assert [run.choices["seed"] for run in memory.missing] == ["s3"]
    minutes = FORMATS["csv"](table(made, show=Shown.minutes))
    assert "mean_minutes,std_minutes" in minutes
    assert "mezo,sst2,2.0,0.5,2,3" in minutes
    for show, cell in {
        Shown.seconds_per_step: "120.000 (30.000) n=2",
        Shown.passes: "5 (1) n=2",
        Shown.queries: "32 (0) n=2",
    }.items():
        assert f"| MeZO | {cell} |" in FORMATS["md"](table(made, show=show))


def test_published_costs_are_printed_beside_ours_in_their_own_unit(runs, tmp_path):
    made = runs({("mezo", "snli_kshot", "s1", "1e-3"): (0.9, 0.5, 0.1)})
    path = tmp_path / "cell0" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "peak_memory_bytes": 2**31}))
    memory = table(made, show=Shown.memory, published="lozo_roberta_k16")
    assert "| MeZO | 2.00 |\n| published | 3.00 |" in FORMATS["md"](memory)
    assert "in GB as printed there, while ours are GiB" in FORMATS["md"](memory)
    (row,) = csv.DictReader(io.StringIO(FORMATS["csv"](memory)))
    assert (row["mean_gib"], row["published_as_printed"]) == ("2.0", "3.00")


def test_a_table_can_show_the_tasks_that_are_not_trained(runs, tmp_path):
    """A run without such tasks counts as missing."""
    made = runs({("mezo", "sst2", seed, "1e-3"): (0.9, 0.5, 0.1) for seed in ("s1", "s2")})
    path = tmp_path / "cell0" / "result.json"
    result = json.loads(path.read_text())
    result["metrics"]["test"]["held_out"] = 0.25
    path.write_text(json.dumps(result))
    held_out = table(made, show=Shown.held_out)
    assert "| MeZO | 25.0 n=1 |" in FORMATS["md"](held_out)
    assert "Mean of the held-out tasks in percent: mean" in FORMATS["md"](held_out)
    assert [run.choices["seed"] for run in held_out.missing] == ["s2"]


def test_a_table_says_by_which_rule_its_values_were_chosen_from_grids_that_it_does_not_cover(runs):
    one = {("mezo", "sst2", "s1", "1e-3"): (0.9, 0.5, 0.1)}
    grids = [{"method": "mezo", "grid": "mezo_opt"}]
    rule = "the example in the README of the method's code"
    assert rule in FORMATS["text"](table(runs(one), grids=grids))
    assert rule not in FORMATS["text"](table(runs(GRID), grids=grids))  # selected, and said so
    assert rule not in FORMATS["text"](table(runs(one)))


def test_an_odd_published_number_has_a_note(runs):
    one = {("mezo", "squad", "s0", "1e-3"): (0.9, 0.5, 0.1)}
    noted = FORMATS["text"](table(runs(one), published="mezo_nondiff_opt"))
    assert "84.7 is its Table 1's MeZO on all weights" in noted


def test_an_impossible_table_config_is_a_user_error(runs):
    with pytest.raises(UserError, match="table: model is neither swept nor set"):
        table(runs(GRID), rows=["model"])
    with pytest.raises(UserError, match=r"no mezo_opt13 \(did you mean 'mezo_opt13b'\?\)"):
        table(runs(GRID), published="mezo_opt13")
    with pytest.raises(UserError, match="has no table"):
        table(runs(GRID), title="")
