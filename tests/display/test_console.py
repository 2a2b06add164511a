"""The output of a run on a terminal and without one."""

from __future__ import annotations

import io
import logging

from rich.console import Console

from lozo_bench.display.console import ProgressBar, summary_table
from lozo_bench.evaluation.evaluate import Metrics

RESULT = {
    "metrics": {
        "zero_shot": {"accuracy": 0.5},
        "dev": {"accuracy": 0.91},
        "test": {"accuracy": 0.8765},
    },
    "best_step": 300,
    "step_ms_median": 12.34,
    "peak_memory_bytes": 450 * 2**20,
}


def test_without_a_terminal_lines_show_loss_best_dev_and_eta(caplog):
    with caplog.at_level(logging.INFO), ProgressBar(steps=20) as bar:
        bar.advanced(10, 0.5)
        bar.evaluated(10, "dev", Metrics({"accuracy": 0.75, "loss": 0.4}))
        bar.evaluated(20, "dev", Metrics({"accuracy": 0.5, "loss": 0.4}))
        bar.row({"step": 10, "loss": 0.5})
    assert caplog.messages[0] == "step 10  dev accuracy 0.7500  loss 0.4000"
    assert caplog.messages[2].startswith("step 10/20  loss 0.5000  best dev 0.7500  ETA 0:00:")


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


def test_the_final_table_has_the_six_numbers_of_a_run(tmp_path):
    screen = io.StringIO()
    Console(file=screen, width=100).print(summary_table(RESULT, tmp_path))
    for text in ("0.5000", "0.9100", "0.8765", "300", "12.3", "450 MiB", tmp_path.name[:10]):
        assert text in screen.getvalue()
