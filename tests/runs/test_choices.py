"""Runs of equal commands are told apart if their configs or their data are not the same."""

from __future__ import annotations

import json

import pytest
import yaml

from lozo_bench.runs.choices import choices_of
from lozo_bench.runs.labels import labels
from lozo_bench.tables.summary import as_sheet, summary_of_folders


@pytest.fixture
def run(tmp_path):
    """Write the folder of a finished run with one metric, 0.1 for each run before it."""
    made = []

    def write(*overrides, config=None, resolved=None, digest=None):
        folder = tmp_path / f"run{len(made)}"
        (folder / ".hydra").mkdir(parents=True)
        hydra = {"overrides": {"task": list(overrides)}, "runtime": {"choices": {}}}
        (folder / ".hydra" / "hydra.yaml").write_text(yaml.dump({"hydra": hydra}))
        raw = {"seed": {"value": len(made)}, **(config or {})}
        (folder / ".hydra" / "config.yaml").write_text(yaml.dump(raw))
        result = {
            "digest": digest or f"{len(made):08x}",
            "config": resolved or raw,
            "metrics": {"test": {"accuracy": len(made) / 10}},
        }
        (folder / "result.json").write_text(json.dumps(result))
        made.append(folder)
        return folder

    return write


def rows_of(*folders):
    sheet = as_sheet(summary_of_folders("", folders))
    return [[cell.strip() for cell in row] for row in sheet.rows], sheet.notes


def test_runs_of_equal_commands_with_other_prompts_are_in_no_mean(run):
    words = ["task=mine", "optimizer=lozo"]
    folders = [
        run(*words, f"seed=s{seed}", config={"task": {"name": "mine", "prompt": prompt}})
        for seed, prompt in ((0, "{text} It was"), (0, "{text} So"), (1, "{text} So"))
    ]
    assert rows_of(*folders)[0] == [
        ["{text} It was", "1", "-", "0.0000"],
        ["{text} So", "2", "-", "0.1500 (0.0500)"],
    ]
    config = {"task": {"name": "mine"}, "seed": {"value": 0}}
    named = labels([(folder, config) for folder in folders])
    assert [label.values for label in named] == [
        {"prompt": "{text} It was"},
        {"prompt": "{text} So"},
        {"prompt": "{text} So"},
    ]


def test_what_follows_the_seed_and_what_was_added_later_set_nothing_apart(run):
    configs = [{"task": {"data_dir": "rows/${seed.value}"}}] * 2
    configs.append({**configs[0], "patience": None, "log_every": 5})
    folders = [run(f"seed=s{seed}", config=config) for seed, config in enumerate(configs)]
    assert [set(choices) for choices in choices_of(folders)] == [{"seed"}] * 3


def test_runs_of_other_data_are_in_no_mean_and_copies_of_a_run_count_once(run):
    other = [run("seed=s0"), run("seed=s0"), run("seed=s1")]
    assert [row[1] for row in rows_of(*other)[0]] == ["1", "1", "1"]
    copies = [run("seed=s0", digest="a"), run("seed=s0", digest="a"), run("seed=s1")]
    rows, notes = rows_of(*copies)
    assert rows == [["2", "-", "0.4000 (0.1000)"]]
    assert "left out: 1 folder with a copy of one of these runs" in notes


def test_a_value_that_no_command_gives_is_the_one_that_was_used(run):
    raw = {"optimizer": {"lr": "${per_tuning:{full:1e-6}}"}}
    given = run("optimizer.lr=1e-3", "seed=s0")
    folders = [given, run("seed=s1", config=raw, resolved={"optimizer": {"lr": 0.001}})]
    assert rows_of(*folders)[0] == [["2", "-", "0.0500 (0.0500)"]]


def test_two_spellings_of_a_number_are_one_row(run):
    words = [("1e-3", 0), ("0.001", 1), ("1e-4", 0)]
    folders = [run(f"optimizer.lr={lr}", f"seed=s{seed}") for lr, seed in words]
    assert [row[:2] for row in rows_of(*folders)[0]] == [["1e-4", "1"], ["1e-3", "2"]]
