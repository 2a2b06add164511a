"""AdamW, the first-order reference point: torch's own, one forward and one backward a step.

Source: Loshchilov and Hutter, "Decoupled weight decay regularization", arXiv 1711.05101.
"""

from __future__ import annotations

import torch

from lozo_bench.engine.draws import Draws
from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import Engine, check_fraction, check_not_negative, check_positive
from lozo_bench.optimizers.first_order import Autocast, FirstOrder, decaying


class AdamW(FirstOrder):
    """First-order fine-tuning; see `first_order.py`.

    Args:
        X: the weights.
        draws: not used: nothing here is random.
        lr: learning rate.
        autocast: the precision of the model's passes.
        dropout: whether the model drops out in them, as its config says.
        beta1: share of the first moment that is kept each step.
        beta2: share of the second moment that is kept each step.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay; matrices only.
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
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = 1.0,
    ) -> None:
        check_not_negative("lr", lr)
        check_fraction("beta1", beta1)
        check_fraction("beta2", beta2)
        check_positive("eps", eps)
        if any(x.dtype is torch.float16 for x in X.X.values()):
            raise UserError(
                "model.dtype: given 'fp16'; allowed with AdamW, whose eps is 0 in fp16: fp32, with "
                "model.autocast=fp16 as published, or bf16"
            )
        weights = decaying(X, weight_decay)
        moments = torch.optim.AdamW(weights, lr=lr, betas=(beta1, beta2), eps=eps)
        super().__init__(
            X, moments, lr=lr, max_grad_norm=max_grad_norm, autocast=autocast, dropout=dropout
        )
