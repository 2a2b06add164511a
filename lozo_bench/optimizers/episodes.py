"""Meta-learning by episodes: in each step some tasks are drawn, and each is adapted to on its own.

An episode of a task begins at the weights and makes K steps of SGD on batches of the task's support
rows. What is learnt from it is found at the weights where it ends; then they are as before:

    (1)  theta_i <- theta;   K times:  theta_i <- theta_i - inner_lr grad L( theta_i; B )

A subclass says what it adds of each episode, and how theta moves by the mean over the episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from lozo_bench.optimizers.adapter_steps import check_no_fp16, gradients_of
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_count,
    check_not_negative,
    check_positive,
)
from lozo_bench.optimizers.task_draws import TaskDraws, stream_of
from lozo_bench.randomness.draws import Draws

SUPPORT, QUERY = "support", "query"


class Episodes:
    """The base of methods that learn from episodes.

    Args:
        engine: holds the weights X.
        draws: chooses the tasks of each step.
        lr: learning rate of theta.
        inner_lr: learning rate of the steps of an episode.
        inner_steps: K.
        tasks: the names of the trained tasks; empty: the run has a single one.
        tasks_per_step: how many tasks a step has.
        query_rows: the share of each task's rows that are query rows; the rest are its support
            rows. 0: all are support rows.
        dropout: whether the passes use the dropout of the model's config.
        autocast: the precision of the model's passes.
    """

    needs = Needs(gradient=True, replayable=False)

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        lr: float,
        inner_lr: float,
        inner_steps: int,
        tasks: list[str],
        tasks_per_step: int,
        query_rows: float,
        dropout: bool,
        autocast: str | None,
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("inner_lr", inner_lr)
        check_count("inner_steps", inner_steps)
        check_no_fp16(autocast)
        self.engine, self.lr = engine, lr
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.drawn = TaskDraws(draws, tuple(tasks), tasks_per_step)
        streams = self.drawn.streams(SUPPORT, (0.0, 1 - query_rows))
        if query_rows:
            streams |= self.drawn.streams(QUERY, (1 - query_rows, 1.0))
        self.needs = Needs(gradient=True, replayable=False, dropout=dropout, streams=streams)
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make an episode of each task of this step, then move the weights.

        Raises:
            NonFiniteLossError: a loss or the update is not finite; the weights have not changed.
        """
        self.t += 1
        X, tasks = self.engine.X, self.drawn.of(self.t)
        total = {name: torch.zeros_like(x) for name, x in X.items()}
        losses = []
        for task in tasks:
            with restored(X) as start:
                losses.append(self._adapt(score, task))
                found = self._learnt(score, task, start)
            for name, x in found.items():
                total[name].add_(x, alpha=1 / len(tasks))
        scalars = self._move(total)
        return Report(sum(losses) / len(losses), forwards=0, scalars=scalars)

    @torch.no_grad()
    def _adapt(self, score: Score, task: str) -> float:
        """Make the K steps of equation (1); return the loss before them."""
        first = 0.0
        for k in range(self.inner_steps):
            loss, gradients = self._gradients(score, stream_of(SUPPORT, task))
            first = first if k else loss
            for name, gradient in gradients.items():
                self.engine.X[name].sub_(gradient, alpha=self.inner_lr)
        return first

    def _gradients(self, score: Score, stream: str) -> tuple[float, dict[str, Tensor]]:
        with torch.enable_grad():
            return gradients_of(score.on(stream), self.engine, self.engine.X)

    def _learnt(self, score: Score, task: str, start: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return what an episode adds, at its last weights; ``start`` are those before it."""
        raise NotImplementedError

    def _move(self, mean: Mapping[str, Tensor]) -> dict[str, float]:
        """Move the weights by the mean of what the episodes added; return what to log."""
        raise NotImplementedError


@contextmanager
def restored(X: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """Return a context with the weights' values, which they have again after it."""
    start = {name: x.detach().clone() for name, x in X.items()}
    try:
        yield start
    finally:
        with torch.no_grad():
            for name, x in X.items():
                x.copy_(start[name])
