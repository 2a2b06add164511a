"""Stochastic gradient descent, torch's own: what a zeroth-order step would be with the gradient.

MeZO's "FT (SGD)" rows (arXiv 2305.17333, Table 18) are it without momentum. It keeps nothing
beside weights and gradients, with momentum one tensor of the weights' size.
"""

from __future__ import annotations

import torch

from lozo_bench.engine.draws import Draws
from lozo_bench.optimizers.base import Engine, check_fraction, check_not_negative
from lozo_bench.optimizers.first_order import Autocast, FirstOrder, decaying


class Sgd(FirstOrder):
    """M <- momentum M + g + weight_decay X; X <- X - lr M. See `first_order.py`.

    Args:
        X: the weights.
        draws: not used: nothing here is random.
        lr: learning rate.
        autocast: the precision of the model's passes.
        dropout: whether the model drops out in them, as its config says.
        momentum: share of the sum of gradients that is kept each step; 0: none is gathered.
        weight_decay: added to the gradient, so that momentum gathers it too; matrices only.
        max_grad_norm: gradients longer than this are shortened to it; None: none are.
    """

    def __init__(
        self,
        X: Engine,
        draws: Draws,
        *,
        lr: float,
        autocast: Autocast,
        dropout: bool = True,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = 1.0,
    ) -> None:
        check_not_negative("lr", lr)
        check_fraction("momentum", momentum)
        moments = torch.optim.SGD(decaying(X, weight_decay), lr=lr, momentum=momentum)
        super().__init__(
            X, moments, lr=lr, max_grad_norm=max_grad_norm, autocast=autocast, dropout=dropout
        )
