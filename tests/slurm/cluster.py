"""Helpers for tests on a real SLURM: its jobs, and the cells that run in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lozo_bench.launch.signals import restore_handlers

SHORT = [
    "steps=120", "eval_every=60", "log_every=5", "batch_size=8", "checkpoint.every=25",
    "task.source.train=44", "task.source.dev=20", "task.source.test=20", "tracking=files",
]  # fmt: skip
# The test node reports eight CPUs and two GPUs that do not exist.
SMALL = ["hydra.launcher.cpus_per_task=1", "hydra.launcher.gpus_per_node=null"]


def wait_for(function, at_most_s=60):
    """Call a function until its result is true, and return the result."""
    end = time.monotonic() + at_most_s
    while time.monotonic() < end:
        found = function()
        if found:
            return found
        time.sleep(0.1)
    pytest.fail(f"waited {at_most_s} s for {function.__name__}")


class Slurm:
    def __init__(self, folder, environment):
        self.folder, self.environment = folder, environment
        self._started = []

    def ask(self, *command):
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def job(self, job):
        """Return SLURM's fields of a job."""
        words = self.ask("scontrol", "-o", "show", "job", job).split()
        return dict(word.partition("=")[::2] for word in words)

    def was_requeued(self, job):
        return int(self.job(job)["Restarts"]) > 0

    def start_now(self, job):
        """Start a requeued job now; SLURM would wait for two minutes."""
        wait_for(lambda: self.job(job)["JobState"] == "PENDING")
        self.ask("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=10")

    def preempt(self, cpus):
        """Submit a job that takes ``cpus`` CPUs from jobs with a lower priority."""
        self.ask(
            "sbatch", "--partition=debug", f"--cpus-per-task={cpus}", "--output=/dev/null",
            "--wrap=sleep 1",
        )  # fmt: skip

    def train(self, folder, *arguments, environment=None):
        """Start the command in the background, as a user would."""
        process = subprocess.Popen(
            [sys.executable, "-m", "lozo_bench.train", *arguments, *SHORT],
            cwd=folder,
            env=self.environment | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=restore_handlers,  # the tests' own shell may ignore SIGINT
        )
        self._started.append(process)
        return process

    def kill_all(self):
        """Kill the processes that a failed test has left."""
        for process in self._started:
            process.kill()
            process.communicate(timeout=20)


class Cell:
    """A cell's folder and the process that runs the cell."""

    def __init__(self, folder):
        self.folder = folder

    @property
    def job(self):
        return json.loads((self.folder / "slurm.json").read_text())["job"]

    @property
    def failure(self):
        return json.loads((self.folder / "failed.json").read_text())

    @property
    def result(self):
        return json.loads((self.folder / "result.json").read_text())

    @property
    def overrides(self):
        text = (self.folder / ".hydra" / "overrides.yaml").read_text()
        return [line.removeprefix("- ") for line in text.splitlines()]

    def is_mid_run(self):
        if (self.folder / "result.json").exists() or not (self.folder / "lock").exists():
            return False
        rows = (self.folder / "metrics.jsonl").read_text() if self.has("metrics.jsonl") else ""
        return '"loss"' in rows

    def has(self, name):
        return (self.folder / name).exists()

    def send(self, number):
        os.kill(json.loads((self.folder / "lock").read_text())["pid"], number)


def cells(folder):
    return [Cell(path.parent) for path in sorted(folder.glob("outputs/*/*/*/*/slurm.json"))]


def first_mid_run(folder, *excluded):
    """Wait for a cell that is in the middle of its steps, suspend its process and return it."""
    folders = {cell.folder for cell in excluded}

    def a_cell_in_the_middle_of_its_steps():
        return [cell for cell in cells(folder) if cell.folder not in folders and cell.is_mid_run()]

    cell = wait_for(a_cell_in_the_middle_of_its_steps)[0]
    cell.send(signal.SIGSTOP)
    return cell
