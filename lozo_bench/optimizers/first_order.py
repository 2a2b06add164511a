"""What first-order methods share: one forward and one backward a step, around a torch optimizer.

Its passes drop out as the model's config says, as in the published fine-tuning rows, unless they
shall not; what is told of a step is then the loss with dropout. Options that share one prompt in a
pass share what is dropped of it.

Where passes are float16, small gradients would be 0 there: losses are scaled up before they go
back, gradients scaled down before they are used (Micikevicius et al., arXiv 1710.03740), by the
rule of torch's GradScaler: half as much after a gradient that overflows, whose step is left out,
and twice as much after 2000 steps without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from lozo_bench.engine.score import NonFiniteLossError
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_not_negative,
    check_positive,
)

Autocast = Literal["bf16", "fp16"] | None

_FIRST_SCALE = 2.0**16
_STEPS_TO_GROW = 2000


class FirstOrder:
    """First-order fine-tuning; a method says which torch optimizer moves the weights.

    Args:
        X: the weights.
        torch_optimizer: moves them.
        lr: learning rate.
        max_grad_norm: gradients longer than this are shortened to it; None: none are.
        autocast: the precision of the model's passes; None: that of the weights.
        dropout: whether the model drops out in the passes that are differentiated.
    """

    needs = Needs(gradient=True, replayable=False)

    def __init__(
        self,
        X: Engine,
        torch_optimizer: torch.optim.Optimizer,
        *,
        lr: float,
        max_grad_norm: float | None,
        autocast: Autocast,
        dropout: bool,
    ) -> None:
        if max_grad_norm is not None:
            check_positive("max_grad_norm", max_grad_norm)
        self.lr = lr
        self.needs = replace(FirstOrder.needs, dropout=dropout)
        self.max_grad_norm = math.inf if max_grad_norm is None else max_grad_norm
        self.engine = X
        self.moments = torch_optimizer
        self.scaled = autocast == "fp16"
        self.loss_scale = _FIRST_SCALE if self.scaled else 1.0
        self.steps_at_scale = 0

    def step(self, score: Score) -> Report:
        """One forward, one backward, one update."""
        loss = score.differentiate(self.loss_scale)
        gradients = [x.grad for x in self.weights if x.grad is not None]
        if self.scaled:
            torch._foreach_div_(gradients, self.loss_scale)
        norm = self._shortened(gradients)
        scalars = {"loss_scale": self.loss_scale} if self.scaled else {}
        if math.isfinite(norm):
            scalars["grad_norm"] = norm
            self._update()
        elif self.loss_scale > 1:
            self.loss_scale, self.steps_at_scale = self.loss_scale / 2, 0
        else:
            raise NonFiniteLossError(f"the gradient of this step is of length {norm}")
        return Report(loss, forwards=1, backwards=1, scalars=scalars)

    @property
    def weights(self) -> list[Tensor]:
        """The weights that move."""
        return list(self.engine.X.values())

    def _shortened(self, gradients: Sequence[Tensor]) -> float:
        """Length of all gradients together, which are shortened if it is finite and too large."""
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.max_grad_norm < norm < math.inf:
            torch.nn.utils.clip_grads_with_norm_(self.weights, self.max_grad_norm, norm)
        return float(norm)

    def _update(self) -> None:
        for group in self.moments.param_groups:
            group["lr"] = self.lr
        self.moments.step()
        if not self.scaled:
            return
        self.steps_at_scale += 1
        if self.steps_at_scale == _STEPS_TO_GROW:
            self.loss_scale, self.steps_at_scale = self.loss_scale * 2, 0


def decaying(X: Engine, weight_decay: float) -> list[dict[str, Any]]:
    """The weights as torch's optimizers take them: matrices decay, vectors do not.

    Raises:
        BadValueError: the decay is negative.
    """
    check_not_negative("weight_decay", weight_decay)
    weights = list(X.X.values())
    return [
        {"params": [x for x in weights if x.ndim >= 2], "weight_decay": weight_decay},
        {"params": [x for x in weights if x.ndim < 2], "weight_decay": 0.0},
    ]
