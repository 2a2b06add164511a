"""Adafactor: the second moment of a matrix kept as a row and a column.

Source: Shazeer and Stern, arXiv 1804.04235. The update is transformers', with which T-Few (Liu et
al., arXiv 2205.05638) trains (IA)^3. In torch's own the learning rate is always relative to each
tensor's size, so that what starts from 0, such as a LoRA matrix or a bias, hardly moves, and
half-precision weights are updated in half precision.
"""

from __future__ import annotations

from transformers.optimization import Adafactor as HfAdafactor

from lozo_bench.engine.draws import Draws
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Engine, check_not_negative, check_positive
from lozo_bench.optimizers.first_order import Autocast, FirstOrder, decaying


class Adafactor(FirstOrder):
    """The learning rate given is the one used, unless parameters scale it. See `first_order.py`.

    Args:
        X: the weights.
        draws: not used: nothing here is random.
        lr: learning rate.
        autocast: the precision of the model's passes.
        dropout: whether the model drops out in them, as its config says.
        decay_rate: of the second moment 1 - t^-decay_rate is kept at step t.
        clip_threshold: an update whose root mean square is above this is scaled down to it.
        scale_parameter: lr counts relative to a tensor's root mean square, of at least 1e-3.
        weight_decay: decoupled decay; matrices only.
        max_grad_norm: gradients longer than this are shortened to it; None: none are, as the update
            is limited by itself.
    """

    def __init__(
        self,
        X: Engine,
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
            decaying(X, weight_decay),
            lr=lr,
            decay_rate=-decay_rate,
            clip_threshold=clip_threshold,
            scale_parameter=scale_parameter,
            relative_step=False,
        )
        super().__init__(
            X, moments, lr=lr, max_grad_norm=max_grad_norm, autocast=autocast, dropout=dropout
        )
