"""The metrics of several tasks: each task's own, and their means over the tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lozo_bench.evaluation.evaluate import Evaluator, Metrics
from lozo_bench.tasks.base import Encoded


class EvaluatorByTask:
    """Evaluates each row as its own task is evaluated.

    The main metric is ``mean``, the mean over the trained tasks of each one's main metric, as
    MetaICL reports it (Min et al., 2022, section 4.1), and ``loss`` is the mean of their losses.
    ``held_out`` is the mean over the tasks that are not trained. Those of each task follow as
    ``rte.accuracy`` and ``rte.loss``.

    Args:
        by_task: the evaluator of each task by its name.
        held_out: the names of those that are not trained.
    """

    def __init__(self, by_task: Mapping[str, Evaluator], held_out: Collection[str]) -> None:
        self.by_task, self.held_out = by_task, held_out
        self.columns = max(evaluator.columns for evaluator in by_task.values())

    def results(self, examples: Sequence[Encoded]) -> Tensor:
        """Return each row's results in the first columns, [n, columns]."""
        found = torch.zeros(len(examples), self.columns, dtype=torch.float64)
        for task, numbers in _by_task(examples).items():
            evaluator = self.by_task[task]
            rows = [examples[i] for i in numbers]
            found[numbers, : evaluator.columns] = evaluator.results(rows)
        return found

    def metrics(self, found: Tensor, examples: Sequence[Encoded]) -> Metrics:
        """See `Evaluator`."""
        numbers = _by_task(examples)
        each = {
            task: evaluator.metrics(
                found[numbers[task], : evaluator.columns], [examples[i] for i in numbers[task]]
            )
            for task, evaluator in self.by_task.items()
            if task in numbers
        }
        trained = [metrics for task, metrics in each.items() if task not in self.held_out]
        held_out = [metrics for task, metrics in each.items() if task in self.held_out]
        values = _mean_of_main("mean", trained) | _mean_of_main("held_out", held_out)
        values["loss"] = _mean([metrics.loss for metrics in trained])
        for task, metrics in each.items():
            values |= {f"{task}.{name}": value for name, value in metrics.values.items()}
        return Metrics(values, all(metrics.guesses for metrics in trained))


def _by_task(examples: Sequence[Encoded]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        numbers.setdefault(example.task, []).append(i)
    return numbers


def _mean_of_main(name: str, each: Sequence[Metrics]) -> dict[str, float]:
    """Return the mean of the main metrics; none if there are no tasks, or one has only a loss."""
    if not each or any(metrics.lower_is_better for metrics in each):
        return {}
    return {name: _mean([metrics.main for metrics in each])}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
