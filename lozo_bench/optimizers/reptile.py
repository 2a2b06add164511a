"""Reptile: the weights move towards where each task's own steps lead.

Source: Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms", arXiv 1803.02999,
Algorithm 2 (batched). With theta_i from K steps on the rows of task i, see `episodes.py`:

    (2)  theta <- theta + lr mean_i ( theta_i - theta )

The inner steps are SGD, as in the paper's text; its code makes them with Adam without momentum. The
paper's step size falls from 1 to 0: ``schedule=linear``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lozo_bench.optimizers.adapter_steps import finite_norm
from lozo_bench.optimizers.base import Engine, Score
from lozo_bench.optimizers.episodes import Episodes
from lozo_bench.randomness.draws import Draws


class Reptile(Episodes):
    """Equation (2) after the episodes of each step's tasks; see `Episodes` for the options."""

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
        dropout: bool,
        autocast: str | None,
    ) -> None:
        super().__init__(
            engine,
            draws,
            lr=lr,
            inner_lr=inner_lr,
            inner_steps=inner_steps,
            tasks=tasks,
            tasks_per_step=tasks_per_step,
            query_rows=0.0,
            dropout=dropout,
            autocast=autocast,
        )

    def _learnt(self, score: Score, task: str, start: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: x.detach() - start[name] for name, x in self.engine.X.items()}

    @torch.no_grad()
    def _move(self, mean: Mapping[str, Tensor]) -> dict[str, float]:
        norm = finite_norm(mean, "update")
        for name, x in self.engine.X.items():
            x.add_(mean[name], alpha=self.lr)
        return {"update_norm": float(norm)}
