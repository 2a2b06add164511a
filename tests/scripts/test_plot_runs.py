"""plot_runs.py: the labels of runs and the picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import programs

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
from plot_runs import labels  # noqa: E402


def run(folder, name, config, finished=True):
    cell = folder / "task" / "model" / name
    cell.mkdir(parents=True)
    rows = [
        {"step": 1, "forward_passes": 2, "loss": 0.5},
        {"step": 1, "forward_passes": 2, "dev_accuracy": 0.5, "dev_loss": 0.6},
    ]
    (cell / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        (cell / "result.json").write_text(json.dumps({"config": config}))
    return cell


def config(lr, seed):
    return {"optimizer": {"_target_": "x", "lr": lr}, "seed": {"value": seed}, "sweep": str(lr)}


def test_runs_that_differ_only_in_seed_share_a_label_and_other_labels_name_the_difference(tmp_path):
    runs = [
        run(tmp_path, "lozo-r2-s0-a", config(0.1, 0)),
        run(tmp_path, "lozo-r2-s1-b", config(0.1, 1)),
        run(tmp_path, "lozo-r2-s0-c", config(0.2, 0)),
    ]
    assert labels(runs) == ["lozo lr=0.1", "lozo lr=0.1", "lozo lr=0.2"]
    assert labels(runs[:2]) == ["lozo", "lozo"]


def plot(folder, out):
    return programs.run(folder, folder, "--out", out, script=SCRIPTS / "plot_runs.py")


def test_a_picture_is_written_and_unfinished_runs_are_ignored(tmp_path):
    run(tmp_path, "lozo-r2-s0-a", config(0.1, 0))
    broken = run(tmp_path, "lozo-r2-s1-b", config(0.1, 1), finished=False)
    (broken / "metrics.jsonl").write_text('{"step": 1, "lo')
    done = plot(tmp_path, tmp_path / "runs.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs.png").read_bytes()[1:4] == b"PNG"


def test_a_folder_without_results_is_reported_in_one_line(tmp_path):
    done = plot(tmp_path, tmp_path / "runs.png")
    assert done.returncode == 2
    assert done.stderr == f"no result.json below {tmp_path}\n"
