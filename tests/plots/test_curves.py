"""Curves are read from the metrics of runs, against what the runs had cost."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lozo_bench.api.result import Result
from lozo_bench.errors import UserError
from lozo_bench.plots.curves import Curve, Panel, panels
from lozo_bench.plots.figure import _limits, draw, in_order, mean_and_std

ROWS = [
    {"step": 0, "forward_passes": 0, "zero_shot_accuracy": 0.5, "zero_shot_loss": 0.7},
    {"step": 1, "loss": 4.0, "forward_passes": 2, "elapsed_s": 1.0},
    {"step": 2, "loss": 2.0, "forward_passes": 4, "elapsed_s": 3.0},
    {"step": 2, "forward_passes": 4, "dev_accuracy": 0.75, "dev_loss": 3.5},
    {"step": 4, "loss": 1.0, "forward_passes": 8, "elapsed_s": 5.0},
    {"step": 4, "forward_passes": 8, "dev_accuracy": 0.5, "dev_loss": 2.0},
    {"step": 2, "forward_passes": 8, "test_accuracy": 0.5, "test_loss": 2.0},
]
TOTALS = {"forwards": 8, "backwards": 4, "queries": 80, "tokens": 800}


@pytest.fixture
def run(tmp_path):
    def make(name="lozo-r2-s0-0123abcd", rows=ROWS, values=TOTALS, task="reviews", **optimizer):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = {"task": {"name": task}, "model": {"name": "tiny"}, "optimizer": optimizer}
        return Result(folder, "finished", "", config, values)

    return make


def only_curve(run, axis, shown):
    ((panel,),) = panels([run], axis, [shown])
    ((curve,),) = panel.curves.values()
    return curve.x.tolist(), curve.y.tolist()


@pytest.mark.parametrize(
    ("axis", "x"),
    [
        ("steps", [1, 2, 4]),
        ("forwards", [2, 4, 8]),
        ("passes", [3, 6, 12]),
        ("queries", [20, 40, 80]),
        ("tokens", [200, 400, 800]),
        ("seconds", [1, 3, 5]),
    ],
)
def test_losses_against_each_axis(run, axis, x):
    assert only_curve(run(), axis, "loss") == (x, [4.0, 2.0, 1.0])


def test_costs_in_the_rows_are_exact(run):
    rows = [
        {"step": 1, "loss": 4.0, "forward_passes": 2, "backward_passes": 2, "queries": 5},
        {"step": 2, "loss": 2.0, "forward_passes": 10, "backward_passes": 2, "queries": 7},
    ]
    assert only_curve(run("lozo-r2-s0-0123abcd", rows), "passes", "loss")[0] == [4, 12]
    assert only_curve(run("lozo-r2-s0-1123abcd", rows), "queries", "loss")[0] == [5, 7]


def test_an_evaluation_is_where_its_step_is(run):
    assert only_curve(run(), "seconds", "dev") == ([3, 5], [0.75, 0.5])


def test_the_gap_is_dev_loss_minus_the_mean_training_loss_since_the_last_evaluation(run):
    assert only_curve(run(), "steps", "gap") == ([2, 4], [0.5, 1.0])


def test_seeds_share_a_label_and_tasks_have_panels_of_their_own(run):
    runs = [
        run("lozo-r2-s0-0123abcd", lr=0.1),
        run("lozo-r2-s1-1123abcd", lr=0.1),
        run("lozo-r2-s0-2123abcd", lr=0.2),
        run("lozo-r2-s0-3123abcd", lr=0.2, task="topics"),
    ]
    (reviews,), (topics,) = panels(runs, "steps", ["dev"])
    assert reviews.title == "dev accuracy (reviews, tiny)"
    assert {label: len(curves) for label, curves in reviews.curves.items()} == {
        "lozo lr=0.1": 2,
        "lozo lr=0.2": 1,
    }
    assert list(topics.curves) == ["lozo"]


def test_a_run_that_is_not_finished_has_no_total(run):
    unfinished = run(values={})
    assert only_curve(unfinished, "forwards", "loss")[0] == [2, 4, 8]
    with pytest.raises(UserError, match="nothing to draw against queries"):
        panels([unfinished], "queries", ["loss"])


def test_the_mean_is_taken_where_all_curves_have_values():
    curves = [
        Curve(np.array([0.0, 2.0, 4.0]), np.array([0.0, 2.0, 4.0])),
        Curve(np.array([1.0, 3.0]), np.array([3.0, 5.0])),
    ]
    x, mean, std = mean_and_std(curves)
    assert x.tolist() == [1, 2, 3]
    assert mean.tolist() == [2, 3, 4]
    assert std.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")]
)
def test_a_figure_is_written(run, tmp_path, name, start):
    draw(panels([run()], "passes", ["loss", "dev", "gap"]), "passes", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_another_kind_of_file_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"--out: .*txt cannot be written"):
        draw(panels([run()], "passes", ["loss"]), "passes", tmp_path / "a.txt")


@pytest.mark.parametrize(("worst", "is_cut"), [(1.0, False), (2.0, False), (40.0, True)])
def test_a_run_that_diverged_does_not_flatten_the_others(worst, is_cut):
    steps = np.arange(40.0)
    good, bad = Curve(steps, 1 - steps / 80), Curve(steps[:2], np.array([1.0, worst]))
    limits = _limits(Panel("loss", {"good": [good], "bad": [bad]}))
    assert (limits is not None) == is_cut
    if limits is not None:
        assert limits[0] < 0.5
        assert 1 < limits[1] < 1.2


def test_damaged_rows_are_in_no_curve(run):
    damaged = run()
    with (damaged.folder / "metrics.jsonl").open("a") as file:
        file.writelines(f'{{"step": 5, "loss": {loss}}}\n' for loss in ("NaN", '"x"', "null"))
    assert only_curve(damaged, "steps", "loss") == ([1, 2, 4], [4.0, 2.0, 1.0])


def test_curves_are_listed_by_the_size_of_their_values():
    labels = ["lozo lr=1e-3", "adamw lr=0.01", "lozo lr=1e-4", "adamw lr=1e-3", "lozo"]
    wanted = ["adamw lr=1e-3", "adamw lr=0.01", "lozo", "lozo lr=1e-4", "lozo lr=1e-3"]
    assert sorted(labels, key=in_order) == wanted
