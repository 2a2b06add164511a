"""What TensorBoard and MLflow have of a run, read with their own readers; skipped without them."""

from __future__ import annotations

import pytest

from lozo_bench.config.schema import TrackingConfig
from lozo_bench.display.trackers.base import About
from lozo_bench.display.tracking import Tracker
from lozo_bench.evaluation.evaluate import Metrics

DEV = Metrics({"accuracy": 0.75, "loss": 0.5})
LOSSES = [(1, 0.5), (2, 0.25), (3, 0.125)]


def record(folder, node):
    """Record a run that was interrupted after step 2 and continues from step 1."""
    tracking = TrackingConfig(trackers={"it": node})
    about = About(folder, {"optimizer": {"lr": 0.5}}, "run", "id", ("a",), "sweep")
    rows = folder / "metrics.jsonl"
    for losses in (LOSSES[:2], LOSSES[1:]):
        with Tracker(about, tracking) as tracker:
            for step, loss in losses:
                tracker.row({"step": step, "loss": loss})
            tracker.evaluated(losses[-1][0], "dev", DEV, {"queries": 8})
            tracker.summarize({"test/accuracy": 0.75})
        if losses[0][0] == 1:
            rows.write_text(rows.read_text().splitlines(keepends=True)[0])


def test_tensorboard_has_one_curve(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record(tmp_path, {"_target_": "lozo_bench.display.trackers.tensorboard.TensorBoard"})
    read = events.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("train/loss")] == LOSSES
    assert [(e.step, e.value) for e in read.Scalars("dev/accuracy")] == [(3, 0.75)]
    assert read.Scalars("summary/test_accuracy")[-1].value == 0.75


@pytest.mark.filterwarnings("default::DeprecationWarning")  # of its own libraries
def test_mlflow_has_one_run_with_one_curve(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    record(tmp_path, {"_target_": "lozo_bench.display.trackers.mlflow.Mlflow", "uri": uri})
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("lozo-bench")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"optimizer.lr": "0.5"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(each.step, each.value) for each in history] == LOSSES
