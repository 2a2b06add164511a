"""First-order MAML: the gradient on a task's query rows, where its support rows lead the weights.

Source: Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep
Networks", arXiv 1703.03400, section 5.2. With theta_i from K steps on the support rows of task i,
see `episodes.py`, and Q_i a batch of its query rows:

    (2)  theta <- Adam( theta, mean_i grad L( theta_i; Q_i ) )

The second derivatives of MAML are left out. The outer update is Adam's, as in the paper's code.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lozo_bench.errors import bad_value
from lozo_bench.optimizers.adapter_steps import adam_over, adam_step
from lozo_bench.optimizers.base import Engine, Score, check_positive
from lozo_bench.optimizers.episodes import QUERY, Episodes
from lozo_bench.optimizers.task_draws import stream_of
from lozo_bench.randomness.draws import Draws


class FirstOrderMaml(Episodes):
    """Equation (2) after the episodes of each step's tasks; see `Episodes` for most options.

    Args:
        max_grad_norm: a mean gradient whose norm exceeds this is clipped to it; None: it is not.
    """

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
        max_grad_norm: float | None,
    ) -> None:
        if not 0 < query_rows < 1:
            raise bad_value("query_rows", query_rows, "a number between 0 and 1")
        if max_grad_norm is not None:
            check_positive("max_grad_norm", max_grad_norm)
        super().__init__(
            engine,
            draws,
            lr=lr,
            inner_lr=inner_lr,
            inner_steps=inner_steps,
            tasks=tasks,
            tasks_per_step=tasks_per_step,
            query_rows=query_rows,
            dropout=dropout,
            autocast=autocast,
        )
        self.max_grad_norm = max_grad_norm
        self.moments = adam_over(engine.X)

    def _learnt(self, score: Score, task: str, start: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self._gradients(score, stream_of(QUERY, task))[1]

    def _move(self, mean: Mapping[str, Tensor]) -> dict[str, float]:
        X, gradient = self.engine.X, dict(mean)
        return {"grad_norm": adam_step(self.moments, X, gradient, self.lr, self.max_grad_norm)}
