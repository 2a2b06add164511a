"""AdamW, the first-order reference point: torch's own, one forward and one backward a step.

Source: Loshchilov and Hutter, "Decoupled weight decay regularization", arXiv 1711.05101. Dropout
is off, as in the forwards of the zeroth-order methods; the published fine-tuning rows had it on.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.score import checked
from lozo_bench.optimizers.base import (
    Engine,
    Report,
    Score,
    Steps,
    check_fraction,
    check_not_negative,
    check_positive,
)


class AdamW:
    """First-order fine-tuning.

    Args:
        X: the weights.
        draws: not used: nothing here is random.
        lr: learning rate.
        beta1: share of the first moment that is kept each step.
        beta2: share of the second moment that is kept each step.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay; matrices only.
        max_grad_norm: gradients longer than this are shortened to it.
    """

    steps: ClassVar[Steps] = Steps.gradient

    def __init__(
        self,
        X: Engine,
        draws: Draws,
        *,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
    ) -> None:
        check_not_negative("lr", lr)
        check_fraction("beta1", beta1)
        check_fraction("beta2", beta2)
        check_positive("eps", eps)
        check_not_negative("weight_decay", weight_decay)
        check_positive("max_grad_norm", max_grad_norm)
        self.lr, self.max_grad_norm = lr, max_grad_norm
        self.weights = list(X.X.values())
        groups = [
            {"params": [x for x in self.weights if x.ndim >= 2], "weight_decay": weight_decay},
            {"params": [x for x in self.weights if x.ndim < 2], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=eps)

    def step(self, score: Score) -> Report:
        """One forward, one backward, one update."""
        loss = score.loss()
        value = float(checked(loss.detach().view(1, 1)))
        self.adamw.zero_grad()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.max_grad_norm)
        for group in self.adamw.param_groups:
            group["lr"] = self.lr
        self.adamw.step()
        return Report(value, forwards=1, backwards=1, scalars={"grad_norm": float(norm)})
