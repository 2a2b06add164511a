"""Several processes do not allocate by gradients, which would be those of their own rows."""

from __future__ import annotations

import json

import cells
import pytest


def test_two_processes_are_refused_in_one_line(tmp_path):
    options = ["tuning=gated_lora", "allocation=grad_norm", "optimizer=adamw"]
    assert cells.run(tmp_path, *options, processes=2) == [2, 2], cells.log(tmp_path)
    log = cells.log(tmp_path)
    assert "Traceback" not in log
    refused = [line for line in log.splitlines() if "single process" in line]
    assert len(refused) in (1, 2)  # a process may end before it has written its line
    assert all(
        line.endswith(
            "allocation: with gradients it needs a single process; it was started as 2; allowed: "
            "one, or a proxy and an optimizer without gradients"
        )
        for line in refused
    )


FORWARD_ONLY = [
    "tuning=gated_lora", "allocation=forward_only", "allocation.every=1.0", "optimizer=lozo",
    "steps=12", "eval_every=4",
]  # fmt: skip


@pytest.mark.parametrize("split", ["batch", "candidates"])
def test_two_processes_choose_the_modules_of_one_by_losses_alone(tmp_path, split):
    one, two = tmp_path / "one", tmp_path / "two"
    assert cells.run(one, *FORWARD_ONLY) == [0], cells.log(one)
    shared = [*FORWARD_ONLY, f"parallel.split={split}"]
    assert cells.run(two, *shared, processes=2) == [0, 0], cells.log(two)
    found = []
    for folder in (one, two):
        lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
        found.append([json.loads(line)["enabled"] for line in lines])
    assert len(found[0]) == 2  # of 44 rows, an epoch has 6 steps
    assert found[0] == found[1]
    for name, metrics in cells.result(one)["metrics"].items():
        assert cells.result(two)["metrics"][name] == pytest.approx(metrics, abs=1e-4)
