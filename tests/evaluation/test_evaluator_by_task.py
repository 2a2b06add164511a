"""The metrics of several tasks are those of each alone, and their means."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.evaluation.evaluate import Metrics, evaluate
from lozo_bench.evaluation.several import EvaluatorByTask
from lozo_bench.tasks.base import Encoded


class Stub:
    """Finds the number of tokens of a row, in each of its columns."""

    def __init__(self, name, columns):
        self.name, self.columns = name, columns

    def results(self, examples):
        lengths = torch.tensor([len(each.rows[0]) for each in examples], dtype=torch.float64)
        return lengths[:, None].repeat(1, self.columns)

    def metrics(self, found, examples):
        assert found.shape == (len(examples), self.columns)
        mean = float(found.mean())
        return Metrics({self.name: mean, "loss": 10 * mean}, guesses=self.name == "f1")


def rows(task, *lengths):
    return [Encoded(((0,) * n,), ((0,),), 0, task=task) for n in lengths]


EXAMPLES = [*rows("a", 9, 1), *rows("b", 2), *rows("c", 7, 7), *rows("a", 2)]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_main_metric_is_the_mean_over_the_trained_tasks(batch_size):
    each = {"a": Stub("accuracy", 3), "b": Stub("f1", 1), "c": Stub("accuracy", 2)}
    metrics = evaluate(EvaluatorByTask(each, ["c"]), EXAMPLES, batch_size)
    assert list(metrics.values.items()) == [
        ("mean", 3.0), ("held_out", 7.0), ("loss", 30.0), ("a.accuracy", 4.0), ("a.loss", 40.0),
        ("b.f1", 2.0), ("b.loss", 20.0), ("c.accuracy", 7.0), ("c.loss", 70.0),
    ]  # fmt: skip
    assert (metrics.name, metrics.main, metrics.lower_is_better) == ("mean", 3.0, False)
    assert not metrics.guesses


def test_without_a_metric_of_a_task_the_loss_is_the_main_one():
    """On dev, the answers of a task that selects by its loss are not generated."""
    metrics = evaluate(EvaluatorByTask({"a": Stub("accuracy", 1), "b": Stub("loss", 1)}, []),
                       [*rows("a", 1), *rows("b", 3)], 8)  # fmt: skip
    assert metrics.name == "loss"
    assert "mean" not in metrics.values
