"""Adafactor: the second moment of a matrix is stored as a row and a column.

Source: Shazeer and Stern, arXiv 1804.04235. The update is that of transformers' Adafactor, with
which T-Few (Liu et al., arXiv 2205.05638) trains (IA)^3. torch's own Adafactor is not used for two
reasons: its learning rate is always relative to the size of each tensor's values, so that a tensor
that starts at 0, such as a LoRA matrix or a bias, hardly moves; and it updates half-precision
weights in half precision.
"""

from __future__ import annotations

from transformers.optimization import Adafactor as HfAdafactor

from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Engine, check_not_negative, check_positive
from lozo_bench.optimizers.first_order import Autocast, FirstOrder, parameter_groups
from lozo_bench.randomness.draws import Draws


class Adafactor(FirstOrder):
    """Adafactor with a learning rate that is used as given, unless ``scale_parameter`` is set.

    See `first_order.py`.

    Args:
        engine: holds the weights X.
        draws: not used; nothing here is random.
        lr: learning rate.
        autocast: the precision of the model's forward and backward passes.
        dropout: whether the model uses the dropout of its config in these passes.
        decay_rate: step t keeps the fraction 1 - t^-decay_rate of the second moment.
        clip_threshold: an update whose root mean square exceeds this is scaled down to it.
        scale_parameter: multiply lr by the root mean square of each tensor, or by 1e-3 if that is
            smaller.
        weight_decay: decoupled weight decay, for matrices only.
        max_grad_norm: gradients whose norm exceeds this are clipped to it; None: no clipping,
            because ``clip_threshold`` already limits the update.
    """

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        lr: float,
        autocast: Autocast,
        dropout: bool = True,
        decay_rate: float = 0.8,
        clip_threshold: float = 1.0,
        scale_parameter: bool = False,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
    ) -> None:
        check_not_negative("lr", lr)
        if not 0 < decay_rate <= 1:
            raise bad_value("decay_rate", decay_rate, "a number above 0, up to 1")
        check_positive("clip_threshold", clip_threshold)
        moments = HfAdafactor(  # type: ignore[no-untyped-call]
            parameter_groups(engine, weight_decay),
            lr=lr,
            decay_rate=-decay_rate,
            clip_threshold=clip_threshold,
            scale_parameter=scale_parameter,
            relative_step=False,
        )
        super().__init__(
            engine, moments, lr=lr, max_grad_norm=max_grad_norm, autocast=autocast, dropout=dropout
        )
