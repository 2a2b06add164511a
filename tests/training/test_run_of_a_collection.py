"""A run over a collection: two tasks are trained, a third one is only tested."""

from __future__ import annotations

import json

import pytest

MEMBER = "+collection@task.tasks"
WORDS = ["terrible", "great"]


def write(folder, task, kind, count):
    rows = [
        {"task": task, "input": f"{task} {n}. It was", "output": WORDS[n % 2], "options": WORDS}
        for n in range(count)
    ]
    (folder / task).mkdir(exist_ok=True)
    (folder / task / f"{task}_{kind}.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def overrides(tmp_path):
    """The overrides of a run over three tasks, of which the last one has no train rows to read."""
    for task in ("mood", "film"):
        write(tmp_path, task, "16384_100_train", 12)
        write(tmp_path, task, "16_100_test", 4)
    write(tmp_path, "held", "16_100_test", 4)
    kinds = {"mood": "trained_classes", "film": "trained_outputs", "held": "held_out_classes"}
    return [
        "task=several", f"task.data_dir={tmp_path}", "task.held_out=[held]",
        "task.select=dev_loss",
        *(f"{MEMBER}.{task}={kind}" for task, kind in kinds.items()),
        *(f"task.tasks.{task}.source.held_out=4" for task in ("mood", "film")),
        "task.tasks.film.max_new_tokens=2",
        "model=tiny_opt", "optimizer=adamw", "steps=2", "eval_every=2", "batch_size=4",
        "tracking=files",
    ]  # fmt: skip


def test_a_held_out_task_of_a_collection_is_tested_without_train_rows(overrides, command, tmp_path):
    code, _, err = command(*overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0, err
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    names = {"mood.macro_f1", "film.f1", "held.macro_f1", "held_out", "mean"}
    assert names <= metrics["test"].keys()
    assert not any(name.startswith("held") for name in metrics["dev"])


def test_a_row_that_does_not_fit_is_refused_with_its_line(overrides, command, tmp_path):
    path = tmp_path / "held" / "held_16_100_test.jsonl"
    path.write_text(path.read_text().replace(json.dumps(WORDS), "[]"))
    code, _, err = command(*overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 2
    assert f"{path}:1: column 'options' is an empty list" in err
    assert "Traceback" not in err
