"""A run that allocates modules is killed at any moment and goes on to the bit."""

from __future__ import annotations

import json
import shutil
import sys

import cells
import pytest

from lozo_bench.allocation.inner import Inner
from lozo_bench.runs.journal import read
from lozo_bench.training.run import run

# Before the first checkpoint, and after one.
KILLED = (1, 6)
SMALL = [
    "steps=9", "batch_size=6", "task.source.train=15", "task.source.dev=6",
    "task.source.test=6", "eval_every=3", "checkpoint.every=2", "optimizer.lr=0.02",
    r"tuning.targets='\.(q_proj|v_proj|fc1|fc2)$'",
]  # fmt: skip
METHODS = {
    "grad_norm": ["allocation=grad_norm", "allocation.batches=2"],
    "online": ["allocation=grad_norm", "allocation.score=online"],
}


class Watched:
    """Copies a run's folder after an allocation, before the step: what is left after a kill."""

    def __init__(self, monkeypatch):
        self.copied, self.t = None, 0
        step = Inner.step

        def watched(inner, score):
            self.t += 1
            if self.copied is not None and self.t in KILLED:
                copy = self.copied.with_name(f"killed in step {self.t}")
                shutil.copytree(self.copied, copy, ignore=shutil.ignore_patterns("lock"))
            return step(inner, score)

        monkeypatch.setattr(Inner, "step", watched)


def content(folder):
    """Return what must be equal: the result, whose weights have the gates, and the records."""
    result = cells.result(folder)
    steps = read((folder / "journal.bin").read_bytes()).steps
    names = ("metrics", "best_step", "forwards", "backwards", "tokens", "weights")
    return {name: result[name] for name in names} | {
        "rows": cells.rows(folder),
        "events": [json.loads(x) for x in (folder / "events.jsonl").read_text().splitlines()],
        "journal": [[answer.numpy().tobytes() for answer in step] for step in steps],
    }


@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_between_an_allocation_and_its_step_goes_on_bitwise(
    tmp_path, monkeypatch, method
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # the figure takes longer than the run
    options = ["optimizer=adamw", "tuning=gated_lora", *METHODS[method], *SMALL]
    config = cells.config(*options)
    watched, folder = Watched(monkeypatch), tmp_path / "straight"
    folder.mkdir()
    watched.copied = folder
    run(config, folder)
    watched.copied = None
    straight = content(folder)
    sets = [event["enabled"] for event in straight["events"] if event["event"] == "allocation"]
    assert len(sets) == 9  # an epoch of 3 steps: before each of them
    assert len(set(sets)) > 1
    for step in KILLED:
        folder = tmp_path / f"killed in step {step}"
        assert not (folder / "result.json").exists()
        run(config, folder)
        assert content(folder) == straight
