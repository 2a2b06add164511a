"""However a run was interrupted, the trackers have one curve: each number of each step once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import cells
from wandb.util import get_core_path

from lozo_bench.config.schema import TrackingConfig
from lozo_bench.display.trackers.base import About
from lozo_bench.display.tracking import Tracker
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.optimizers.base import Event
from lozo_bench.runs.outcome import Code

ROWS = [
    {"step": 1, "train/loss": 0.5, "queries": 8},
    {"step": 1, "swap/layer": 2},
    {"step": 2, "train/loss": 0.25, "queries": 16},
    {"step": 2, "test/rte.accuracy": 0.75, "tested_step": 1},
]


def wandb_files(folder):
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def records_in(file):
    """Return the records of a file of wandb, as its own reader reads them."""
    # As `wandb leet inspect --json FILE` does, but without the second that its start takes.
    command = [get_core_path(), "leet", "inspect", "--json", "--run-file", file, file.parent]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in lines.splitlines()]


def wandb_steps(folder):
    """Return (step, numbers) for all rows in all files of wandb.

    The last run has ended, but wandb's process may still be writing its file: one of the
    last records is "exit".
    """
    *files, last = wandb_files(folder)
    deadline = time.monotonic() + 30
    ended = records_in(last)
    while not any(record["type"] == "exit" for record in ended):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        ended = records_in(last)
    records = [record for file in files for record in records_in(file)] + ended
    found = [each["history"]["item"] for each in records if each["type"] == "history"]
    own = [{key: x for key, x in item.items() if key[0] != "_"} for item in found]
    return [(item["_step"], numbers) for item, numbers in zip(found, own, strict=True)]


def test_wandb_has_each_step_of_a_run_once_that_was_killed_after_its_last_checkpoint(tmp_path):
    """Killed after step 13, it continues from its state of step 10."""
    folder = tmp_path / "run"  # not beside runs of other tests, which would continue this one
    overrides = ["tracking=wandb", "optimizer=adamw", "steps=16"]
    process = cells.start_waiting(folder, overrides, until='"step": 13')
    cells.wait_until_it_waits(folder, process)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert cells.run(folder, *overrides) == [Code.finished]
    assert "continuing after step 10" in cells.log(folder)
    first, second = wandb_files(folder)
    assert first.name == second.name  # one run
    steps = wandb_steps(folder)
    assert [step for step, _ in steps] == list(range(17))
    losses = {row["step"]: row["loss"] for row in cells.rows(folder) if "loss" in row}
    assert {at: x["train/loss"] for at, x in steps if "train/loss" in x} == losses
    assert [at for at, x in steps if "dev/accuracy" in x] == [8, 16]


def tracker_in(folder, tracking):
    return Tracker(About(folder, {}, "run", "id"), tracking)


def send(tracker):
    tracker.row({"step": 1, "loss": 0.5, "queries": 8})
    tracker.event(1, Event("swap", {"layer": 2}))
    tracker.row({"step": 2, "loss": 0.25, "queries": 16})
    tracker.evaluated(1, "test", Metrics({"rte.accuracy": 0.75}), {})


def test_what_wandb_lost_with_the_end_of_its_file_is_sent_again(tmp_path):
    tracking = TrackingConfig(wandb=True)
    with tracker_in(tmp_path, tracking) as tracker:
        send(tracker)
    whole = [(1, ROWS[0] | ROWS[1]), (2, ROWS[2] | ROWS[3])]
    assert wandb_steps(tmp_path) == whole
    (file,) = wandb_files(tmp_path)
    data = file.read_bytes()
    file.write_bytes(data[: data.index(b"train/loss", data.index(b"swap/layer"))])
    with tracker_in(tmp_path, tracking):
        pass
    assert wandb_steps(tmp_path) == whole


def test_a_tracker_gets_the_past_in_order_and_nothing_that_it_has(tmp_path, monkeypatch):
    sent, has = [], {}

    class Seen:
        failures = ()

        def __init__(self, about):
            self.recorded = lambda name: has.get(name, -1)
            self.log = lambda step, numbers: sent.append((step, dict(numbers)))

        summarize = figure = None

        def close(self, failed):
            """Nothing is open."""

    monkeypatch.setattr("lozo_bench.display.trackers.csv_file.CsvFile", Seen)
    node = {"_target_": "lozo_bench.display.trackers.csv_file.CsvFile"}
    tracking = TrackingConfig(trackers={"seen": node})
    with tracker_in(tmp_path, tracking) as tracker:
        send(tracker)
    at_once = sent.copy()
    sent.clear()
    with tracker_in(tmp_path, tracking):
        pass
    in_order = [(row["step"], row) for row in [ROWS[1], ROWS[0], *ROWS[2:]]]
    assert (at_once, sent) == ([(row["step"], row) for row in ROWS], in_order)
    sent.clear()
    has |= {"train/loss": 1, "queries": 2, "swap/layer": 1}
    with tracker_in(tmp_path, tracking):
        pass
    assert sent == [(2, {"step": 2, "train/loss": 0.25}), (2, ROWS[3])]
