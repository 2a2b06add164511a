"""How good a model is over a set of examples: its metric, and its loss.

Every example is judged once, examples of like length together, and what is found of each stands in
the order of the set: batch size and number of processes change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lozo_bench.engine.score import STOPPED, raise_if_stopped, shareable
from lozo_bench.engine.sharing import ALONE, Sharing
from lozo_bench.stop import Stopped
from lozo_bench.tasks.base import Encoded

Advanced = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers by name: the task's metric first, as a fraction, and ``loss`` in nats."""

    values: Mapping[str, float]

    @property
    def name(self) -> str:
        """What the metric that judges is called."""
        return next(iter(self.values))

    @property
    def score(self) -> float:
        """The metric that judges, in [0, 1] (`matthews`: [-1, 1])."""
        return self.values[self.name]

    @property
    def loss(self) -> float:
        """Mean loss: of the choice, or of the right text's tokens."""
        return self.values["loss"]


class Judge(Protocol):
    """What is found of each example, and what that comes to."""

    columns: int

    def found(self, examples: Sequence[Encoded]) -> Tensor:
        """``columns`` numbers of each example, [n, columns] float64 on the CPU."""
        ...

    def metrics(self, found: Tensor, examples: Sequence[Encoded]) -> Metrics:
        """What the numbers of a whole set, [N, columns], come to."""
        ...


@torch.inference_mode()
def evaluate(
    judge: Judge,
    examples: Sequence[Encoded],
    batch_size: int,
    sharing: Sharing = ALONE,
    check: Callable[[], None] = lambda: None,
    advanced: Advanced = lambda done, of: None,
) -> Metrics:
    """Judge every example.

    Args:
        judge: looks at examples.
        examples: the set.
        batch_size: examples that are looked at together.
        sharing: deals the examples among processes.
        check: called before each batch; raises Stopped when the run shall stop.
        advanced: called after each batch with how many of this process's examples are done.

    Raises:
        Stopped: the run shall stop, as one of the processes was told.
    """
    mine = sharing.rows(len(examples))
    order = sorted(mine, key=lambda i: max(map(len, examples[i].rows)))
    found = torch.zeros(len(examples), judge.columns, dtype=torch.float64)
    try:
        for start in range(0, len(order), batch_size):
            check()
            numbers = order[start : start + batch_size]
            found[numbers] = judge.found([examples[i] for i in numbers])
            advanced(start + len(numbers), len(order))
        found = shareable(found)
    except Stopped:
        found = torch.full_like(found, STOPPED)
    found = sharing.totals(found.flatten()).view(found.shape)
    raise_if_stopped(found)
    return judge.metrics(found, examples)
