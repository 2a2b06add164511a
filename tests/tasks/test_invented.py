"""Made-up rows have everything that the texts of a task refer to, for every task."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
import yaml

from lozo_bench.config.schema import TaskConfig
from lozo_bench.tasks.invented import invented
from lozo_bench.tasks.template import Template

TASKS = Path(__file__).resolve().parents[2] / "conf" / "task"
KNOWN = {field.name for field in dataclasses.fields(TaskConfig)}
REVIEWS = TaskConfig(name="reviews", prompt="{text} It was", options=[" bad", " good"])


def rows(task, number=6, seed=0):
    return invented(dataclasses.replace(task, invented_rows=number), seed)


# Without those that consist of other tasks, whose rows are made up one by one.
SINGLE = [
    path for path in sorted(TASKS.glob("*.yaml")) if yaml.safe_load(path.read_text()).get("source")
]


@pytest.mark.parametrize("path", SINGLE, ids=lambda path: path.stem)
def test_made_up_rows_fit_the_texts_of_every_task(path):
    node = yaml.safe_load(path.read_text())
    task = TaskConfig(**{key: value for key, value in node.items() if key in KNOWN})
    for row in rows(task).train:
        for text in (task.prompt, *task.options, task.calibration):
            Template(text or "", "task.prompt").fill(row.fields, row.where)
        choices = row.options or task.options or task.label_words or task.source.get("labels")
        assert bool(row.answers) == (task.answer is not None)
        assert row.answers or (len(set(choices)) > 1 and 0 <= row.label < len(choices))


def test_labels_alternate():
    assert [row.label for row in rows(REVIEWS).train] == [0, 1, 0, 1, 0, 1]


def test_masked_template_gets_as_many_fields_as_it_refers_to():
    task = TaskConfig(name="x", template="*sent-_0*?*mask*+sentl_1*", label_words=["a", "b", "c"])
    (row, *_) = rows(task).test
    assert len(row.fields) == 2
    assert [row.label for row in rows(task).dev] == [0, 1, 2, 0, 1, 2]


def test_generated_answers_are_part_of_the_passage():
    task = TaskConfig(name="qa", prompt="{passage} {question}", answer=" {answer}\n")
    for row in rows(task).train:
        assert len(row.answers) == 2
        assert all(answer in row.fields["passage"] for answer in row.answers)


def test_rows_have_their_own_options_if_the_task_has_none():
    task = TaskConfig(name="record", prompt="{passage}\n-")
    made = rows(task).train
    assert {len(set(row.options)) for row in made} == {3}
    assert {row.label for row in made} == {0, 1, 2}


def test_sets_share_no_row_and_only_the_test_set_is_independent_of_the_seed():
    one, other = rows(REVIEWS, 40, seed=1), rows(REVIEWS, 40, seed=2)
    texts = [{row.fields["text"] for row in split} for split in (one.train, one.dev, one.test)]
    assert [len(split) for split in texts] == [40, 40, 40]
    assert len(set.union(*texts)) == 120
    assert one.test == other.test
    assert one.train != other.train
    assert one == rows(REVIEWS, 40, seed=1)


def test_a_warning_says_that_the_rows_are_made_up(caplog):
    with caplog.at_level(logging.WARNING):
        rows(REVIEWS)
    assert "the rows are made up (task.invented_rows=6)" in caplog.text
