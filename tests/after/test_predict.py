"""``lozo-predict`` prints what a model answers on each row."""

from __future__ import annotations

import io
import json
import shutil
import sys

import pytest

from lozo_bench.after import predict
from lozo_bench.config.paths import EMBEDDED
from lozo_bench.evaluation import answers

FEW = ["tracking=files", "steps=2", "batch_size=4", "task.source.test=24", "task.source.dev=8"]


@pytest.fixture
def predicted(monkeypatch, capfd):
    """Call the command; return its exit code, the rows that it prints, and its messages."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["lozo-predict", *map(str, words)])
        capfd.readouterr()
        try:
            predict.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        printed = capfd.readouterr()
        return code, [json.loads(line) for line in printed.out.splitlines()], printed.err

    return call


@pytest.fixture
def run(command, tmp_path):
    """Make a run; return its folder."""

    def make(*words):
        code, _, err = command(*FEW, *words)
        assert code == 0, err
        (path,) = tmp_path.glob("outputs/default/*/*/*/result.json")
        return path.parent

    return make


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["task=entailment"], [" No", " Yes", " Maybe"]),
        (["model=tiny_roberta", "task=reviews"], None),
    ],
)
def test_the_rows_of_a_run_give_its_own_numbers(run, predicted, monkeypatch, words, options):
    """Whatever number of rows is sorted and answered at once: 10 here."""
    folder = run("predictions=true", *words)
    test = json.loads((folder / "result.json").read_text())["metrics"]["test"]
    monkeypatch.setattr(answers, "_BATCHES_AHEAD", 2)
    code, rows, err = predicted(folder, "--batch-size", 5)
    assert code == 0
    assert f"24 rows: accuracy {test['accuracy']:.4f}  loss {test['loss']:.4f}" in err
    assert sum(row["choice"] == row["gold"] for row in rows) == round(24 * test["accuracy"])
    assert options is None or rows[0]["options"] == options
    assert all(len(row["scores"]) == len(row["options"]) for row in rows)
    kept = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["choice"] for row in kept] == [row["choice"] for row in rows]


def test_new_rows_come_from_a_file_or_from_standard_input(run, predicted, tmp_path, monkeypatch):
    folder = run("task=reviews")
    labelled = tmp_path / "new.csv"
    labelled.write_text(
        "id,sentence,label\n7,the film was lovely .,great\n8,the food was dull .,great\n"
    )
    code, rows, err = predicted(folder, "--input", labelled)
    assert code == 0
    assert [row["gold"] for row in rows] == ["great", "great"]
    assert rows[1]["row"] == {"id": "8", "sentence": "the food was dull .", "label": "great"}
    assert "2 rows: accuracy" in err
    texts = "the film was lovely .\n\nthe food was dull .\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(texts))
    code, of_texts, err = predicted(folder, "--input", "-")
    assert [row["scores"] for row in of_texts] == [row["scores"] for row in rows]
    assert not {"gold", "row"} & of_texts[0].keys()
    assert err == ""


def test_a_model_answers_the_rows_of_a_task(predicted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "answers.jsonl"
    labels = "task.options=[' [/b] bad',' [good']"  # no markup, whatever they look like
    words = ["embedded:tiny_opt", "--task", "reviews", "task.source.test=10", "--out", out, labels]
    code, printed, err = predicted(*words)
    assert (code, printed) == (0, [])
    assert "10 rows: accuracy" in err
    assert len(out.read_text().splitlines()) == 10


def test_a_models_folder_may_have_any_name(predicted, tmp_path):
    folder = tmp_path / "my 'model', {x}=1 é"
    shutil.copytree(EMBEDDED / "tiny_opt", folder)
    code, printed, err = predicted(folder, "--task", "reviews", "task.source.test=2")
    assert (code, len(printed)) == (0, 2), err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nope"], "nope: it is no run; a model needs --task NAME, such as --task sst2"),
        (
            ["embedded:tiny_opt", "--task", "reviews", "--step", "3"],
            "--step: a model has no steps; allowed: for a run",
        ),
        (
            ["embedded:tiny_opt", "--task", "reviews", "--input", "nope.csv"],
            "nope.csv: the file cannot be read: No such file or directory",
        ),
        (
            ["embedded:tiny_opt", "--task", "entailment", "--input", "nope.txt"],
            "--input: a row of this task has several texts; allowed: a .csv, .tsv, .jsonl or .json "
            "file with the columns premise, hypothesis",
        ),
    ],
)
def test_a_mistake_is_one_line(predicted, words, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert predicted(*words) == (2, [], f"{line}\n")
