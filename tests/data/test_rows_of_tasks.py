"""Rows of several tasks in one batch: which go through the model together, and their weights."""

from __future__ import annotations

from lozo_bench.data.batch import BatchLayout
from lozo_bench.data.sets import Data
from lozo_bench.data.several import together
from lozo_bench.tasks.base import Encoded


def row(answer):
    tokens = tuple(range(1, 3 + answer))
    return Encoded(rows=(tokens,), answer=(tuple(range(2, 2 + answer)),), label=0)


def part(*answers, label_ids=(), by_tokens=False):
    rows = [row(answer) for answer in answers]
    return Data(rows, rows[:1], rows[:1], BatchLayout(0, label_ids), by_tokens)


def test_rows_keep_their_task_and_held_out_tasks_have_test_rows_only():
    held_out = Data([], [], [row(1)], BatchLayout(0))
    data = together({"a": part(1, 2), "b": part(3), "c": held_out})
    assert [each.task for each in data.train] == ["a", "a", "b"]
    assert [each.task for each in data.dev] == ["a", "b"]
    assert [each.task for each in data.test] == ["a", "b", "c"]


def test_rows_with_the_same_layout_go_through_the_model_together():
    data = together({"a": part(1), "b": part(1), "c": part(1, label_ids=(7, 8))})
    a, b, c = data.train
    assert data.alike([a, c, b, c]) == [[0, 2], [1, 3]]


def test_answers_count_by_their_tokens_within_their_task():
    written = {"w": part(1, 3, by_tokens=True), "v": part(5, by_tokens=True)}
    data = together({"a": part(1), **written})
    assert data.alike(data.train) == [[0], [1, 2, 3]]
    assert data.shares(data.train) == [1.0, 0.5, 1.5, 1.0]
    assert together({"a": part(1), "b": part(2)}).shares(data.train) is None
