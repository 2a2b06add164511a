"""SGD with torch's own optimizer: the step of ZO-SGD with the gradient in place of its estimate.

MeZO's "FT (SGD)" rows (arXiv 2305.17333, Table 18) are SGD without momentum. It stores nothing but
weights and gradients; momentum adds one buffer as large as the weights.
"""

from __future__ import annotations

import torch

from lozo_bench.optimizers.base import Engine, check_fraction, check_not_negative
from lozo_bench.optimizers.first_order import Autocast, FirstOrder, parameter_groups
from lozo_bench.randomness.draws import Draws


class Sgd(FirstOrder):
    """M <- momentum M + g + weight_decay X; X <- X - lr M. See `first_order.py`.

    Args:
        engine: holds the weights X.
        draws: not used; nothing here is random.
        lr: learning rate.
        autocast: the precision of the model's forward and backward passes.
        dropout: whether the model uses the dropout of its config in these passes.
        momentum: fraction of M that is kept at each step; 0: no momentum buffer.
        weight_decay: weight_decay X is added to the gradient of matrices, so that M accumulates it.
        max_grad_norm: gradients whose norm exceeds this are clipped to it; None: no clipping.
    """

    def __init__(
        self,
        engine: Engine,
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
        moments = torch.optim.SGD(parameter_groups(engine, weight_decay), lr=lr, momentum=momentum)
        super().__init__(
            engine, moments, lr=lr, max_grad_norm=max_grad_norm, autocast=autocast, dropout=dropout
        )
