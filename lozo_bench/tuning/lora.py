"""LoRA: chosen matrices W become W + (alpha / r) B A; only A and B are trained.

Source: Hu et al., arXiv 2106.09685, with the choices of MeZO's code (large_models/lora.py:114-147):
r = 8, alpha = 16, queries and values, no dropout. At the start B in R^{m x r} is zero, and A in
R^{r x n} is uniform in [-1/sqrt(n), 1/sqrt(n)), which equals kaiming_uniform with a = sqrt(5).

`optimizers/mezo_lora.py` runs MeZO on the same matrices with another implementation, which writes
no weights during the forward passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod, sqrt
from typing import Any, ClassVar

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lozo_bench.errors import bad_value
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, check_pattern, freeze_rest, linear_layers
from lozo_bench.tuning.head import head_parameters
from lozo_bench.tuning.injected import inject, new_dtype, set_initial_values


class Lora:
    """Train low-rank matrices beside frozen ones.

    Args:
        r: the rank: B has r columns and A has r rows.
        alpha: the product B A is multiplied by alpha / r.
        targets: a regular expression; the linear layers whose names match get an adapter. In GPT-2
            one layer computes queries, keys and values.
        train_head: also train everything behind the backbone. MeZO's released RoBERTa code does so:
            it freezes only parameters whose names start with "roberta"
            (medium_models/run.py:939-942), so that lm_head stays trainable.
    """

    # Further fields of peft's config, which make a variant of LoRA.
    variant: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *, r: int, alpha: float, targets: str, train_head: bool = False) -> None:
        if r < 1:
            raise bad_value("r", r, "a whole number >= 1")
        if not 0 < alpha < float("inf"):
            raise bad_value("alpha", alpha, "a number > 0")
        check_pattern("targets", targets)
        self.r, self.alpha, self.targets, self.train_head = r, alpha, targets, train_head

    def config(self, model: PreTrainedModel) -> LoraConfig:
        """Return peft's config for a model."""
        layers = linear_layers(model, self.targets, "targets")
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft only divides it by r
            target_modules=list(layers),
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
            **self.variant,
        )

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        model = loaded.model
        head = head_parameters(loaded, "tuning.train_head") if self.train_head else set()
        inject(model, self.config(model))
        initialise_all(model, draws, 0)
        X = freeze_rest(model, lambda name, x: ".lora_" in name or id(x) in head)
        redraw = partial(initialise_all, model, draws)
        return Tuned(X, model, all_weights=False, redraw=redraw)


def initialise_all(model: nn.Module, draws: Draws, number: int) -> None:
    """Set the initial values of all adapters of a model; see `initialise`."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            initialise(name, module, draws, number)


def initialise(name: str, layer: LoraLayer, draws: Draws, number: int = 0) -> None:
    """Set the initial values of a layer's A and B, and of DoRA's magnitudes if it has them.

    Args:
        name: the layer's name, which keys A.
        layer: peft's layer.
        draws: source of A.
        number: of the draw.
    """
    A = layer.lora_A["default"].get_parameter("weight")
    B = layer.lora_B["default"].get_parameter("weight")
    dtype, shape = new_dtype(layer), tuple(A.shape)
    uniform = draws.uniform_range("lora_A", number, name, 0, prod(shape)).view(shape)
    set_initial_values(A, (2 * uniform.to(dtype) - 1) / sqrt(shape[1]))
    set_initial_values(B, torch.zeros(B.shape, dtype=dtype))
    if layer.lora_magnitude_vector:
        dora: Any = layer.lora_magnitude_vector["default"]
        W = layer.get_base_layer().get_parameter("weight").detach().to(dtype)
        BA = W.new_zeros(len(B), shape[1])
        # In peft's own arithmetic, so that at the start each magnitude is its norm to the bit.
        set_initial_values(dora.weight, dora.get_weight_norm(W, BA, layer.scaling["default"]))
