"""What the documents tell a newcomer to type or to add works as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import documents
import programs
import pytest

ROOT = documents.ROOT
BLOCKS = [block for path in documents.DOCUMENTS for block in documents.blocks(path)]
# The documents with blocks that are marked as ```sh tutorial.
TUTORIALS = [
    path.relative_to(ROOT)
    for path in documents.DOCUMENTS
    if any(kind == "sh tutorial" for kind, _ in documents.blocks(path))
]
COMMANDS = {
    "lozo-train": "-m lozo_bench.train",
    "lozo-status": "-m lozo_bench.after.status",
    "lozo-tables": "-m lozo_bench.tables.main",
    "lozo-export": "-m lozo_bench.after.export",
    "lozo-predict": "-m lozo_bench.after.predict",
    "lozo-plot": "-m lozo_bench.plots.main",
    "lozo-report": "-m lozo_bench.report.main",
    "lozo-figures": "-m lozo_bench.figures.main",
    "python": "",
}

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
    """The only YAML block, in any document, that begins with this command."""
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
    for name in ("lozo_bench", "conf", "scripts"):
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
    (code,) = [text for kind, text in BLOCKS if kind == "python" and "class SignLozo" in text]
    (checkout / "lozo_bench/optimizers/sign_lozo.py").write_text(code)
    (checkout / "conf/optimizer/sign_lozo.yaml").write_text(yaml_of("optimizer=sign_lozo"))
    result = lozo_train(checkout, "optimizer=sign_lozo", "task.source.dev=8")
    assert (result["steps"], result["forwards"]) == (4, 8)
    assert result["config"]["optimizer"]["_target_"].endswith("SignLozo")


def test_a_model_is_a_yaml_file(checkout):
    config = yaml_of("model=my_opt").replace("my-org/my-opt", "embedded:tiny_opt")
    (checkout / "conf/model/my_opt.yaml").write_text(config)
    result = lozo_train(checkout, "model=my_opt", "task.source.dev=8")
    assert result["config"]["model"]["name"] == "my_opt"


def run_tutorial(document, folder):
    """Run the document's tutorial blocks in their order, in one shell; what they print."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name, arguments in COMMANDS.items():
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (bin_folder / name).chmod(0o755)
    code = [text for kind, text in documents.blocks(ROOT / document) if kind == "sh tutorial"]
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", "\n".join(code)],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=380,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_readme(folder, printed):
    """The trained model is right on all rows and is saved; the table is the one in the README."""
    from transformers import AutoModelForCausalLM

    result = json.loads((folder / "outputs/feedback/result.json").read_text())
    assert result["metrics"]["test"]["accuracy"] == 1.0
    AutoModelForCausalLM.from_pretrained(folder / "my_model")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (MeZO|LOZO|FT|published) \| (.*?) \| (.*?) ?\|$", readme, re.MULTILINE)
    table = re.findall(r"^│ (\w+) +│ +([\d.]*) │ +([\d.]*) │$", printed, re.MULTILINE)
    assert len(shown) == 6
    assert shown == table


CHECKS = {"README.md": check_readme}


@pytest.mark.timeout(400)  # four commands in fresh processes, as a user types them
@pytest.mark.parametrize("document", TUTORIALS, ids=str)
def test_the_commands_of_a_tutorial_work_as_printed(checkout, document):
    printed = run_tutorial(document, checkout)
    CHECKS.get(str(document), lambda folder, printed: None)(checkout, printed)


def test_the_readme_has_a_tutorial():
    assert Path("README.md") in TUTORIALS
