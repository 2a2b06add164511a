"""Evaluate a model on a set of examples: compute its metrics and its loss.

Every example is evaluated once, together with examples of similar length. The results are stored in
the order of the set, so that the metrics do not depend on the batch size or the number of
processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lozo_bench.engine.finite import STOPPED, bounded, raise_if_stopped
from lozo_bench.engine.sharing import ALONE, Sharing
from lozo_bench.errors import Stopped
from lozo_bench.tasks.base import Encoded

# Called with the number of examples that are done and the number of all.
Advanced = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers by name: the task's metric first, as a fraction or a perplexity, and the ``loss``.

    Cross-entropy is in nats, hinge loss in units of the scores. ``guesses`` says that the loss of
    every row is that of a guess, to which all its options score the same. It is False for losses
    that are not of a choice, and for restored metrics.
    """

    values: Mapping[str, float]
    guesses: bool = False

    @property
    def name(self) -> str:
        """The name of the task's main metric."""
        return next(iter(self.values))

    @property
    def main(self) -> float:
        """The value of the main metric, in [0, 1] (`matthews`: [-1, 1]; perplexity: from 1)."""
        return self.values[self.name]

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value of the main metric is a better one."""
        return self.name in ("loss", "perplexity")

    @property
    def loss(self) -> float:
        """The mean loss: of the classifications, or of the right answers' tokens."""
        return self.values["loss"]


class Evaluator(Protocol):
    """An evaluator: computes results per example, and metrics from the results of a whole set.

    ``columns`` is how many numbers it stores per example.
    """

    columns: int

    def results(self, examples: Sequence[Encoded]) -> Tensor:
        """Return the results of these examples, [n, columns], float64 on the CPU."""
        ...

    def metrics(self, found: Tensor, examples: Sequence[Encoded]) -> Metrics:
        """Compute the metrics from the results of a whole set, [N, columns]."""
        ...


def by_length(examples: Sequence[Encoded], numbers: Iterable[int]) -> list[int]:
    """Return the numbers task by task, and within a task by the length of the longest row."""
    return sorted(numbers, key=lambda i: (examples[i].task, max(map(len, examples[i].rows))))


@torch.inference_mode()
def evaluate(
    evaluator: Evaluator,
    examples: Sequence[Encoded],
    batch_size: int,
    sharing: Sharing = ALONE,
    check: Callable[[], None] = lambda: None,
    advanced: Advanced = lambda done, of: None,
) -> Metrics:
    """Evaluate every example and return the metrics of the set.

    Args:
        evaluator: the evaluator.
        examples: the set.
        batch_size: how many examples are evaluated together.
        sharing: distributes the examples among processes.
        check: called before each batch; raises Stopped if the run must stop.
        advanced: called after each batch with two numbers: how many of this process's examples are
            done, and how many it has.

    Raises:
        Stopped: one of the processes was asked to stop.
    """
    own_rows = sharing.rows(len(examples))
    order = by_length(examples, own_rows)
    found = torch.zeros(len(examples), evaluator.columns, dtype=torch.float64)
    try:
        for start in range(0, len(order), batch_size):
            check()
            numbers = order[start : start + batch_size]
            found[numbers] = evaluator.results([examples[i] for i in numbers])
            advanced(start + len(numbers), len(order))
        found = bounded(found)
    except Stopped:
        found = torch.full_like(found, STOPPED)
    found = sharing.totals(found.flatten()).view(found.shape)
    raise_if_stopped(found)
    return evaluator.metrics(found, examples)
