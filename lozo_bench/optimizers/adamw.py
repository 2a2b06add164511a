"""AdamW with torch's own optimizer, the first-order baseline: one forward and one backward a step.

Source: Loshchilov and Hutter, "Decoupled weight decay regularization", arXiv 1711.05101.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import (
    Engine,
    Event,
    check_fraction,
    check_not_negative,
    check_positive,
)
from lozo_bench.optimizers.first_order import Autocast, FirstOrder, parameter_groups
from lozo_bench.optimizers.spectra import Spectra
from lozo_bench.randomness.draws import Draws


class AdamW(FirstOrder):
    """First-order fine-tuning; see `first_order.py`.

    Args:
        engine: holds the weights X.
        draws: not used; nothing here is random.
        lr: learning rate.
        autocast: the precision of the model's forward and backward passes.
        dropout: whether the model uses the dropout of its config in these passes.
        beta1: fraction of the first moment that is kept at each step.
        beta2: fraction of the second moment that is kept at each step.
        eps: added to the root of the second moment.
        weight_decay: decoupled weight decay, for matrices only.
        max_grad_norm: gradients whose norm exceeds this are clipped to it; None: no clipping.
        spectra_every: the singular values of gradients are logged every so many steps; 0: never.
        spectra_of: of the matrices whose names contain this regular expression.

    Raises:
        UserError: the weights are float16, or an option is out of range.
    """

    def __init__(
        self,
        engine: Engine,
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
        spectra_every: int = 0,
        spectra_of: str = r"\.(q_proj|query)\.weight$",
    ) -> None:
        check_not_negative("lr", lr)
        check_fraction("beta1", beta1)
        check_fraction("beta2", beta2)
        check_positive("eps", eps)
        if any(x.dtype is torch.float16 for x in engine.X.values()):
            raise UserError(
                "model.dtype: given 'fp16'; allowed with AdamW: bf16, or fp32 with "
                "model.autocast=fp16 as published, because AdamW's eps of 1e-8 is 0 in fp16"
            )
        self.spectra = Spectra(spectra_every, spectra_of)
        weights = parameter_groups(engine, weight_decay)
        moments = torch.optim.AdamW(weights, lr=lr, betas=(beta1, beta2), eps=eps)
        super().__init__(
            engine, moments, lr=lr, max_grad_norm=max_grad_norm, autocast=autocast, dropout=dropout
        )

    def _events(self) -> Sequence[Event]:
        made = max((int(state["step"]) for state in self.moments.state.values()), default=0)
        return self.spectra.events(self.engine.X, made)
