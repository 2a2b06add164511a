"""The output of a run on a terminal and without one."""

from __future__ import annotations

import io
import logging
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from lozo_bench.config.schema import Select
from lozo_bench.display.console import ProgressBar, summary_table
from lozo_bench.display.device_hours import DeviceHours
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.optimizers.base import Event

RESULT = {
    "metrics": {
        "zero_shot": {"accuracy": 0.5},
        "dev": {"accuracy": 0.91},
        "test": {"accuracy": 0.8765},
    },
    "best_step": 300,
    "step_ms_median": 12.34,
    "peak_memory_bytes": 450 * 2**20,
    "peak_memory_of": "run",
}


def test_without_a_terminal_lines_show_loss_best_dev_and_eta(caplog):
    with caplog.at_level(logging.INFO), ProgressBar(steps=20) as bar:
        bar.advanced(10, 0.5)
        bar.evaluated(10, "dev", Metrics({"accuracy": 0.75, "loss": 0.4}))
        bar.evaluated(20, "dev", Metrics({"accuracy": 0.5, "loss": 0.4}))
        bar.row({"step": 10, "loss": 0.5})
    assert caplog.messages[0] == "step 10  dev accuracy 0.7500  loss 0.4000"
    assert caplog.messages[2].startswith("step 10/20  loss 0.5000  best dev 0.7500  ETA 0:00:")


def test_a_run_that_costs_something_shows_how_much_of_it_is_spent(caplog):
    """1000 of 4000 steps took 1800 s on two GPUs, and an earlier attempt 360 s."""
    cost = DeviceHours(2, "GPU-hours", 360.0, began=time.perf_counter() - 1800)
    with caplog.at_level(logging.INFO), ProgressBar(steps=4000, cost=cost) as bar:
        bar.began -= 1800
        bar.row({"step": 1000, "loss": 0.5})
    (line,) = caplog.messages
    assert line.startswith("step 1000/4000  loss 0.5000  best dev -  ETA 1:30:0")
    assert line.endswith("  1.20 of 4.20 GPU-hours")


def test_on_a_terminal_a_bar_replaces_the_lines(caplog, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        "lozo_bench.display.console.Console",
        lambda stderr: Console(file=screen, force_terminal=True, width=100),
    )
    with caplog.at_level(logging.INFO), ProgressBar(steps=20) as bar:
        bar.evaluated(10, "dev", Metrics({"accuracy": 0.75, "loss": 0.4}))
        bar.advanced(10, 0.5)
        bar.row({"step": 10, "loss": 0.5})
    assert caplog.messages == []
    assert "10/20" in screen.getvalue()
    assert "loss 0.5000" in screen.getvalue()
    assert "best dev 0.7500" in screen.getvalue()


def test_the_bar_says_that_steps_of_an_earlier_attempt_are_restored(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        "lozo_bench.display.console.Console",
        lambda stderr: Console(file=screen, force_terminal=True, width=100),
    )
    with ProgressBar(steps=20, known=5) as bar:
        bar.advanced(4, 0.5)
        bar.bar.refresh()
        restoring = screen.getvalue()
        bar.advanced(6, 0.5)
    assert "restoring step" in restoring
    assert "4/5" in restoring
    assert "6/20" in screen.getvalue().removeprefix(restoring)


def shown(result, folder):
    screen = io.StringIO()
    Console(file=screen, width=100).print(summary_table(result, folder))
    return screen.getvalue()


def test_the_final_table_has_the_numbers_of_a_run_and_says_of_which_step_they_are(tmp_path):
    for text in ("0.5000", "0.9100", "0.8765", "12.3", "450 MiB", tmp_path.name[:10]):
        assert text in shown(RESULT, tmp_path)
    assert "dev (step 300)" in shown(RESULT, tmp_path)
    assert "test (step 300)" in shown(RESULT, tmp_path)


def test_the_final_table_says_whose_peak_memory_it_shows(tmp_path):
    assert " peak memory " in shown(RESULT, tmp_path)
    of_process = {**RESULT, "peak_memory_of": "process"}
    assert "process's peak memory" in shown(of_process, tmp_path)
    former = {key: value for key, value in RESULT.items() if key != "peak_memory_of"}
    assert " peak memory " in shown(former, tmp_path)


def test_a_resumed_run_shows_the_best_dev_so_far_and_an_eta_of_the_new_steps(caplog, monkeypatch):
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("lozo_bench.display.console.time", clock)
    with caplog.at_level(logging.INFO), ProgressBar(steps=104, known=100) as bar:
        for step in range(1, 101):
            now[0] += 1.0  # a step that is made again takes a second, and a new one ten
            bar.advanced(step, 0.5)
        bar.recalled("dev", Metrics({"accuracy": 0.75, "loss": 0.4}))
        now[0] += 10.0
        bar.advanced(101, 0.5)
        bar.row({"step": 101, "loss": 0.5})
    assert caplog.messages == ["step 101/104  loss 0.5000  best dev 0.7500  ETA 0:00:30"]


def test_the_bar_of_a_resumed_run_does_not_measure_its_speed_by_restored_steps():
    with ProgressBar(steps=200, known=150) as bar:
        for step in range(1, 151):
            bar.advanced(step, 0.5)
        bar.advanced(151, 0.5)
        task = bar.bar.tasks[0]
        assert task.completed == 151
        assert sum(sample.completed for sample in task._progress) <= 1


def test_the_best_dev_of_negative_metrics_is_the_highest(caplog):
    with ProgressBar(steps=2) as bar:
        for value in (0.0, -0.5):
            bar.evaluated(1, "dev", Metrics({"matthews": value, "loss": 0.4}))
        assert bar.best_dev == 0.0


def test_an_event_is_shown_with_few_digits(caplog):
    values = {"layer": 3, "loss": 0.7188941836357117, "name": "h.0"}
    with caplog.at_level(logging.INFO), ProgressBar(steps=2) as bar:
        bar.happened(1, Event("untouched_model", values))
    assert caplog.messages == ["step 1  untouched_model  layer 3  loss 0.7189  name h.0"]


@pytest.mark.parametrize(
    ("select", "shown"),
    [
        ("dev_metric", "best dev 0.7500"),
        ("dev_loss", "best dev loss 0.2"),
        ("last", "last dev 0.5"),
    ],
)
def test_the_dev_that_is_shown_is_what_chooses_the_tested_step(caplog, select, shown):
    with caplog.at_level(logging.INFO), ProgressBar(steps=9, select=Select[select]) as bar:
        bar.recalled("dev", Metrics({"accuracy": 0.75, "loss": 0.4}))
        bar.recalled("dev", Metrics({"accuracy": 0.5, "loss": 0.2}))
        bar.row({"step": 3, "loss": 0.5})
    assert shown in caplog.messages[0]
