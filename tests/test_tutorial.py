"""What the README tells a newcomer to add works as it stands there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import programs
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(yaml|python)\n(.*?)```", README, re.DOTALL)

TWEETS = "text\tlabel\n" + "".join(
    f"day {i} was {'bad' if i % 2 else 'good'}\t{'neg' if i % 2 else 'pos'}\n" for i in range(24)
)
SCIENCE = [
    {"answerKey": "B", "question": {
        "stem": f" What is {i} and 1?", "choices": [{"text": str(i + k)} for k in range(4)],
    }}
    for i in range(24)
]  # fmt: skip
CAPITALS = [
    {"country": f"land {i}", "questions": [
        {"text": "its capital", "answers": [f"Town {i}", f"City {i}"]},
        {"text": "its river?", "answers": "Flow"},
    ]}
    for i in range(12)
]  # fmt: skip
SHORT = [
    "steps=4", "eval_every=2", "batch_size=4", "tracking=files", "model.device=cpu",
]  # fmt: skip


def yaml_of(command):
    """The block that begins with this command."""
    (found,) = [
        text for kind, text in BLOCKS if kind == "yaml" and f"# lozo-train {command}" in text
    ]
    return found


def lozo_train(folder, *arguments):
    """The command in a checkout's folder of its own; its result."""
    done = programs.run(folder, *arguments, *SHORT, package=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = folder.glob("outputs/**/result.json")
    return json.loads(result.read_text())


@pytest.fixture
def checkout(tmp_path):
    """A copy of the package and its conf, to add to."""
    for name in ("lozo_bench", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("task", "file", "text", "metric"),
    [
        ("tweets", "tsv", TWEETS, "accuracy"),
        ("science", "jsonl", jsonl(SCIENCE), "accuracy"),
        ("capitals", "jsonl", jsonl(CAPITALS), "f1"),
    ],
)
def test_a_task_is_a_yaml_file(checkout, task, file, text, metric):
    (checkout / f"conf/task/{task}.yaml").write_text(yaml_of(f"task={task}"))
    (checkout / "data").mkdir()
    for split in ("train", "dev"):
        (checkout / "data" / f"{split}.{file}").write_text(text)
    result = lozo_train(checkout, f"task={task}", "task.data_dir=data", "task.source.num_dev=8")
    assert next(iter(result["metrics"]["test"])) == metric
    assert result["config"]["task"]["name"] == task


def test_an_optimizer_is_one_file_and_one_yaml_file(checkout):
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    (checkout / "lozo_bench/optimizers/sign_lozo.py").write_text(code)
    (checkout / "conf/optimizer/sign_lozo.yaml").write_text(yaml_of("optimizer=sign_lozo"))
    result = lozo_train(checkout, "optimizer=sign_lozo", "task.source.dev=8")
    assert (result["steps"], result["forwards"]) == (4, 8)
    assert result["config"]["optimizer"]["_target_"].endswith("SignLozo")
