"""Records in files and in wandb."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cells
import pytest

from lozo_bench.config.schema import TrackingConfig, WandbMode
from lozo_bench.display.trackers.base import About
from lozo_bench.display.tracking import Tracker
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.optimizers.base import Event
from lozo_bench.runs.result_file import read_result, write_result
from lozo_bench.training.run import run


def tracker_in(folder, tracking=None, name="run"):
    config = {"optimizer": {"lr": 0.5}}
    about = About(folder, config, name, f"id-{name}", tags=("a", "b"), group="g")
    return Tracker(about, tracking or TrackingConfig())


def test_rows_and_evaluations_are_written_as_json_lines_at_once(tmp_path):
    with tracker_in(tmp_path) as tracker:
        tracker.row({"step": 1, "loss": 0.5})
        tracker.evaluated(1, "dev", Metrics({"accuracy": 0.75, "loss": 0.4}), {"forward_passes": 2})
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 0.5},
        {"step": 1, "forward_passes": 2, "dev_accuracy": 0.75, "dev_loss": 0.4},
    ]


def test_the_numbers_of_a_task_are_named_by_their_set_and_the_task(tmp_path):
    metrics = Metrics({"mean": 0.5, "loss": 0.1, "rte.accuracy": 0.5})
    with tracker_in(tmp_path) as tracker:
        tracker.evaluated(1, "test", metrics, {"forward_passes": 2})
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert list(row)[2:] == ["test_mean", "test_loss", "test/rte.accuracy"]


def test_events_are_written_as_json_lines_at_once(tmp_path):
    with tracker_in(tmp_path) as tracker:
        tracker.event(3, Event("incumbent", {"loss": 0.5, "layer": "h.0"}))
        tracker.event(4, Event("incumbent", {"loss": float("inf")}))
        lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 3, "event": "incumbent", "loss": 0.5, "layer": "h.0"},
        {"step": 4, "event": "incumbent", "loss": "inf"},
    ]


def test_a_nan_is_refused(tmp_path):
    with (
        tracker_in(tmp_path) as tracker,
        pytest.raises(ValueError, match="Out of range float"),
    ):
        tracker.row({"step": 1, "loss": float("nan")})


def test_a_result_is_written_atomically(tmp_path):
    with pytest.raises(TypeError):
        write_result(tmp_path, {"digest": "d", "bad": object()})
    assert read_result(tmp_path, "d") is None
    result = {"digest": "d", "status": "finished", "metrics": {}}
    write_result(tmp_path, result)
    assert read_result(tmp_path, "d") == result
    assert [path.name for path in tmp_path.glob("*")] == ["result.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"digest": "other", "status": "finished", "metrics": {}}',
            "its digest is other, but this run's is d",
        ),
        ("{", "not valid JSON"),
        ("null", "not the result of a run"),
        ('{"digest": "d", "status": "finished"}', "not the result of a run"),
        ('{"digest": "d", "status": "finished", "metrics": {}, "checksum": "0"}', "is damaged"),
        ("[" * 100000, "nested too deeply"),
    ],
)
def test_a_damaged_result_or_one_of_another_run_is_refused(tmp_path, text, message):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_result(tmp_path, "d")


def offline_runs(folder):
    return sorted(folder.glob("wandb/offline-run-*"))


def recorded(run):
    """Return what wandb itself reads from an offline run's folder."""
    wandb = str(Path(sys.executable).parent / "wandb")
    done = subprocess.run(
        [wandb, "leet", "inspect", "--summary", "--json", str(run)],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return json.loads(done.stdout)


def test_each_cell_in_a_process_is_a_separate_wandb_run(tmp_path):
    tracking = TrackingConfig(wandb=True)
    for name, loss in (("first", 0.25), ("second", 0.75)):
        cell = tmp_path / name
        cell.mkdir()
        with tracker_in(cell, tracking, name) as tracker:
            tracker.row({"step": 10, "loss": loss})
            tracker.summarize({"test_accuracy": 0.9})
        (run,) = offline_runs(cell)
        record = recorded(run)
        assert record["name"] == name
        assert record["run_id"].startswith(f"id-{name}")
        assert (record["project"], record["tags"]) == ("lozo-bench", ["a", "b"])
        assert record["config"] == {"optimizer": {"lr": 0.5}}
        assert record["summary"]["train/loss"] == loss
        assert record["summary"]["test_accuracy"] == 0.9
        assert (record["state"], record["exit_code"]) == ("finished", 0)


def test_a_figure_is_sent_to_wandb_as_it_is_drawn(tmp_path):
    path = tmp_path / "search.svg"
    path.write_text("<svg>drawn</svg>")
    with tracker_in(tmp_path, TrackingConfig(wandb=True)) as tracker:
        tracker.row({"step": 10, "loss": 0.5})
        tracker.figure(path)
    (run,) = offline_runs(tmp_path)
    (page,) = run.rglob("media/html/*.html")
    assert page.read_text() == "<svg>drawn</svg>"


def test_a_failed_run_is_marked_as_failed_in_wandb(tmp_path):
    tracker = tracker_in(tmp_path, TrackingConfig(wandb=True))
    with pytest.raises(RuntimeError, match="boom"), tracker:
        raise RuntimeError("boom")
    (run,) = offline_runs(tmp_path)
    assert recorded(run)["exit_code"] == 1


@pytest.mark.parametrize(
    "tracking", [TrackingConfig(), TrackingConfig(wandb=True, mode=WandbMode.disabled)]
)
def test_wandb_is_not_used_unless_it_is_enabled(tmp_path, tracking):
    with tracker_in(tmp_path, tracking) as tracker:
        tracker.row({"step": 1, "loss": 0.5})
    assert not (tmp_path / "wandb").exists()


def test_a_tracker_that_fails_gets_nothing_more(tmp_path, monkeypatch, caplog):
    calls = []

    class Full:
        failures = (LookupError,)

        def __init__(self, about):
            """Nothing to start."""

        def recorded(self, name):
            return -1

        def log(self, step, numbers):
            calls.append((step, dict(numbers)))
            raise LookupError("no room")

        summarize = figure = close = None

    monkeypatch.setattr("lozo_bench.display.trackers.csv_file.CsvFile", Full)
    node = {"_target_": "lozo_bench.display.trackers.csv_file.CsvFile"}
    with tracker_in(tmp_path, TrackingConfig(trackers={"full": node})) as tracker:
        tracker.row({"step": 4, "loss": 0.5, "queries": 8})
        tracker.row({"step": 5, "loss": 0.4, "queries": 9})
    assert calls == [(4, {"step": 4, "train/loss": 0.5, "queries": 8})]
    assert caplog.messages == [
        "full accepts no more numbers (no room); the run continues, and all numbers are in "
        "metrics.jsonl"
    ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_metrics_csv_has_each_row_once_and_a_column_for_each_number(tmp_path):
    node = {"_target_": "lozo_bench.display.trackers.csv_file.CsvFile"}
    tracking = TrackingConfig(trackers={"csv": node})
    with tracker_in(tmp_path, tracking) as tracker:
        tracker.row({"step": 1, "loss": 0.5})
    with tracker_in(tmp_path, tracking) as tracker:
        tracker.evaluated(1, "dev", Metrics({"accuracy": 0.75}), {"queries": 8})
        text = (tmp_path / "metrics.csv").read_text()
    assert text == "step,loss,queries,dev_accuracy\n1,0.5,,\n1,,8,0.75\n"


def test_a_tracker_whose_package_is_missing_is_one_line(tmp_path, monkeypatch):
    for package in ("mlflow", "tensorboard"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    for name, target in (("mlflow", "mlflow.Mlflow"), ("tensorboard", "tensorboard.TensorBoard")):
        node = {"_target_": f"lozo_bench.display.trackers.{target}"}
        with pytest.raises(UserError, match=rf"tracking={name}: .*pip install {name}"):
            tracker_in(tmp_path, TrackingConfig(trackers={name: node}))


def test_wandb_has_names_costs_groups_and_final_numbers_of_a_run(tmp_path):
    options = ["tracking=[wandb,csv]", "tracking.tags=[mine]", "steps=2", "eval_every=1"]
    run(cells.config(*options), tmp_path)
    (offline,) = offline_runs(tmp_path)
    record = recorded(offline)
    assert record["tags"] == ["mine", "lozo", "reviews", "tiny_opt"]
    config, summary = record["config"], record["summary"]
    assert (config["method"], config["optimizer"]["name"]) == ("lozo", "lozo")
    assert config["tuning"]["name"] == "full"
    assert summary.keys() >= {
        "train/loss", "dev/accuracy", "test/accuracy", "best_dev/accuracy", "elapsed_s", "queries",
        "tokens", "flops", "peak_memory_bytes", "step_ms_median", "best_step", "forward_passes",
    }  # fmt: skip
    assert summary["step"] == 2
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    costs = {"forward_passes", "backward_passes", "queries", "tokens", "elapsed_s"}
    assert all(costs <= row.keys() for row in rows)
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 1 + len(rows)
