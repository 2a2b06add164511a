"""The command lozo-tables: its output and its exit codes."""

from __future__ import annotations

import json
import re
import shlex
import sys
from functools import partial

import pytest

from lozo_bench.config.paths import CONF
from lozo_bench.tables import main
from lozo_bench.tables.cells import configs, sweep

NARROW = ["mezo_opt13b", "method=mezo", "task=sst2,rte"]


@pytest.fixture
def tables(console):
    """A function: tables("NAME", ...) returns (exit code, standard output, standard error)."""
    return partial(console, main.main, "lozo-tables")


def test_missing_runs_are_listed_on_standard_error_and_the_exit_code_is_1(tables):
    code, out, err = tables(*NARROW)
    assert code == 1
    assert "│ published │  91.4 │ 66.1 │" in out
    assert out.splitlines()[0].endswith(", with method=mezo task=sst2,rte"), out
    assert "lozo-train" not in out
    assert "2 runs are missing:" in err
    assert "\nall of them:\n  lozo-train -m experiment=mezo_opt13b method=mezo task=sst2,rte" in err
    with configs(CONF):
        (run, _) = sweep(["experiment=mezo_opt13b", *NARROW[1:]]).runs
    assert run.command in err


def test_the_results_of_the_listed_commands_fill_the_table(tables, tmp_path):
    _, _, err = tables(*NARROW)
    commands = [line.strip() for line in err.splitlines() if line.startswith("  lozo-train meth")]
    for number, command in enumerate(commands):
        with configs(CONF):
            (run,) = sweep(shlex.split(command)[1:]).runs
        (tmp_path / run.folder).mkdir(parents=True)
        metrics = {"dev": {"accuracy": 1, "loss": 0}, "test": {"accuracy": number / 4, "loss": 0}}
        (tmp_path / run.folder / "result.json").write_text(json.dumps({"metrics": metrics}))
    code, out, err = tables(*NARROW)
    assert (code, err) == (0, "")
    assert "│ MeZO      │   0.0 │ 25.0 │" in out


def test_a_mistake_prints_one_line_and_exits_with_code_2(tables):
    for arguments, message in {
        ("mezo_opt13",): "experiment=mezo_opt13: no such option (did you mean 'mezo_opt13b'?)",
        ("mezo_opt13b", "method=mezzo"): "method=mezzo: no such option (did you mean 'mezo'?)",
        ("mezo_opt13b", "stepps=3"): "stepps: no such key (did you mean 'steps'?)",
        ("smoke",): "the experiment has no table",
        ("optimizers", "--grids"): "--grids: no grids are published for this table",
    }.items():
        code, out, err = tables(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith(message)
        assert err.count("\n") == 1


def test_without_a_name_the_command_lists_the_tables(tables):
    code, out, _ = tables()
    assert code == 0
    assert re.search(r"^lozo_opt13b +OPT-13B, 1000 examples \(LOZO, Table 2\)$", out, re.MULTILINE)
    assert "smoke" not in out


def test_no_slow_library_is_imported():
    import subprocess

    code = (
        "import sys, lozo_bench.tables.main; "
        "print([m for m in ('torch', 'transformers', 'wandb', 'datasets') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "[]"


def test_overrides_without_an_experiment_and_the_folder_give_the_table_of_their_sweep(
    tables, tmp_path
):
    """Runs without a result are missing; a task of the user's own is found by --config-dir."""
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "own.yaml").write_text("defaults: [reviews]\nname: own\n")
    given = ["task=own", "optimizer.lr=1e-3,1e-4", "seed=s0,s1", "sweep=lrs", "--config-dir=mine"]
    code, out, err = tables(*given)
    assert code == 1
    assert "4 runs are missing:" in err
    command = f"lozo-train --config-dir={tmp_path / 'mine'} task=own optimizer.lr=0.001 seed=s0"
    assert f"  {command} sweep=lrs\n" in err
    assert "│ 1e-3 │ 0 of 2 │   - │    - │" in out
    with configs(CONF, tmp_path / "mine"):
        runs = sweep(given[:-1]).runs
    for number, run in enumerate(runs):
        metrics = {"dev": {"accuracy": number / 4, "loss": 0}, "test": {"accuracy": 1, "loss": 0}}
        hydra = {"overrides": {"task": [f"{k}={v}" for k, v in run.choices.items()]}}
        (tmp_path / run.folder / ".hydra").mkdir(parents=True)
        (tmp_path / run.folder / "result.json").write_text(json.dumps({"metrics": metrics}))
        (tmp_path / run.folder / ".hydra" / "config.yaml").write_text("steps: 1\n")
        (tmp_path / run.folder / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": hydra}))
    code, out, err = tables(*given)
    assert (code, err) == (0, "")
    assert "│ 1e-4 │    2 │ 0.6250 (0.1250) * │ 1.0000 (0.0000) │" in out
    for name in ("lrs", "outputs/lrs"):
        code, of_folder, err = tables(name)
        assert (code, err) == (0, "")
        assert sorted(of_folder.splitlines()[1:]) == sorted(out.splitlines()[1:])
        assert of_folder.index("1e-4") < of_folder.index("1e-3")
    code, _, err = tables("outputs/lrs", "--config-dir=nowhere")
    assert (code, err.count("\n")) == (2, 1)
