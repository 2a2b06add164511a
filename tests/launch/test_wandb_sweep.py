"""wandb's own search starts our command, and has the table of a sweep of ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cells
import pytest
import yaml
from report_folders import write_run
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from lozo_bench.config.schema import TrackingConfig
from lozo_bench.display.trackers.wandb_sweep import send_sweep
from lozo_bench.report import main
from lozo_bench.training.checks import checked

README = Path(__file__).resolve().parents[2] / "lozo_bench" / "launch" / "README.md"


def test_the_documented_search_gives_overrides_that_a_run_takes():
    (text,) = re.findall(r"```yaml\n(# wandb sweep .*?)```", README.read_text(), re.DOTALL)
    search = yaml.safe_load(text)
    assert search["command"][-1] == "${args_no_hyphens}"
    parameters = search["parameters"]
    first = {key: one.get("values", [one.get("min")])[0] for key, one in parameters.items()}
    given = {"args": {key: {"value": value} for key, value in first.items()}}
    words = create_sweep_command_args(given)["args_no_hyphens"]
    config, _ = checked(cells.composed(*search["command"][1:-1], *words))
    assert config.optimizer["lr"] == parameters["optimizer.lr"]["min"]
    assert config.tracking.wandb


@pytest.mark.parametrize("wandb", [True, False])
def test_the_table_of_a_sweep_is_an_artifact(tmp_path, wandb):
    (tmp_path / "summary.md").write_text("| a |")
    (tmp_path / "runs.png").write_bytes(b"png")
    send_sweep(tmp_path, TrackingConfig(wandb=wandb))
    assert bool(list(tmp_path.glob("wandb/offline-run-*"))) == wandb
    if wandb:
        assert all(name in artifact_in(tmp_path) for name in ("summary.md", "runs.png"))


def test_a_report_joins_the_table_in_the_artifact_of_its_sweep(tmp_path, console):
    (tmp_path / "multirun.yaml").touch()
    (tmp_path / "summary.md").write_text("| a |")
    write_run(tmp_path / "cell", test=0.5)
    code, out, err = console(main.main, "lozo-report", str(tmp_path), "--out", "r.html", "--wandb")
    assert (code, err) == (0, "")
    assert f"r.html is in wandb, in sweep-{tmp_path.name}" in out
    assert all(name in artifact_in(tmp_path) for name in ("summary.md", "r.html"))


def test_runs_of_no_sweep_have_no_artifact(tmp_path, console):
    write_run(tmp_path / "alone", test=0.5)
    code, _, err = console(main.main, "lozo-report", str(tmp_path / "alone"), "--wandb")
    assert code == 2
    assert err == "--wandb: no finished run of a sweep (lozo-train -m) is among the runs\n"


def artifact_in(folder):
    """Return what wandb's offline run in a sweep's folder says of its artifact."""
    (run,) = folder.glob("wandb/offline-run-*")
    program = str(Path(sys.executable).parent / "wandb")
    done = subprocess.run(
        [program, "leet", "inspect", "--json", str(run)],
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    records = [json.loads(line) for line in done.stdout.splitlines()]
    (artifact,) = [record for record in records if record["type"] == "artifact"]
    return json.dumps(artifact)
