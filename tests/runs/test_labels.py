"""Runs are told apart by their method and by the values in which they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from lozo_bench.runs.labels import labels, method_of


def config(task="reviews", rank=2, seed=0, **optimizer):
    return {
        "model": {"name": "tiny_opt", "path": "x"},
        "task": {"name": task, "prompt": f"prompt of {task}", "source": {"num_train": 8}},
        "optimizer": {"_target_": "lozo_bench.optimizers.lozo.Lozo", "rank": rank, **optimizer},
        "tuning": {"_target_": "lozo_bench.tuning.full.Full"},
        "rank": {"value": rank},
        "seed": {"value": seed, "draws": seed},
        "steps": 10,
        "sweep": f"sweep{seed}",
    }


def of(*runs):
    return [
        str(label)
        for label in labels([(Path(f"{m}-r2-s0-0123abcd"), config) for m, config in runs])
    ]


def test_equal_runs_have_the_name_of_their_method():
    assert of(("lozo", config(seed=0)), ("lozo", config(seed=1))) == ["lozo", "lozo"]


def test_values_that_differ_are_named_shortly():
    runs = [("lozo", config(lr=1e-3)), ("lozo", config(lr=1e-6, rank=4)), ("mezo", config(lr=1.0))]
    assert of(*runs) == ["lozo lr=1e-3 rank=2", "lozo lr=1e-6 rank=4", "mezo"]


def test_a_task_is_described_by_its_name():
    assert of(("lozo", config()), ("mezo", config("topics"))) == [
        "lozo task=reviews",
        "mezo task=topics",
    ]


def test_two_keys_of_one_name_are_written_in_full():
    first, second = config(lr=1.0), config(lr=2.0)
    first["tuning"]["lr"], second["tuning"]["lr"] = 1, None
    assert of(("x", first), ("x", second)) == [
        "x optimizer.lr=1 tuning.lr=1",
        "x optimizer.lr=2 tuning.lr=null",
    ]


@pytest.mark.parametrize(
    ("folder", "method"),
    [("mezo_adam-lora-r2-s0-0123abcd", "mezo_adam-lora"), ("my_run", "lozo")],
)
def test_the_method_is_in_the_name_of_the_folder_or_that_of_the_class(folder, method):
    assert method_of(Path(folder), config()) == method


def test_a_run_without_an_optimizer_has_a_name():
    assert method_of(Path("x"), config() | {"optimizer": {}}) == "zero_shot"
    shots = {"optimizer": {}, "evaluation": {"shots": 4}}
    assert method_of(Path("x"), config() | shots) == "in_context"
