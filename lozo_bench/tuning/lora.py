"""LoRA: chosen matrices W become W + (alpha / r) B A, of which only A and B move.

Source: Hu et al., arXiv 2106.09685; as MeZO has it, spec lozo_mezo 2.2. B in R^{m x r} is zero at
the start and A in R^{r x n} uniform within +-1/sqrt(n), which is what Kaiming's rule with a =
sqrt(5) comes to. There is no dropout.

`optimizers/mezo_lora.py` is MeZO on the same matrices by another road, which writes no weights.
"""

from __future__ import annotations

from math import prod, sqrt

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from transformers.pytorch_utils import Conv1D

from lozo_bench.engine.draws import Draws
from lozo_bench.errors import bad_value
from lozo_bench.models.load import Loaded
from lozo_bench.tuning.base import Tuned, check_pattern, linear_layers, moving
from lozo_bench.tuning.head import head_parameters
from lozo_bench.tuning.injected import inject, new_dtype, start


class Lora:
    """Low-rank matrices beside frozen ones move.

    Args:
        r: how many columns and rows B and A have.
        alpha: B A counts alpha / r times.
        targets: a regular expression; linear layers in whose name it is found get an adapter. In
            GPT-2 queries, keys and values are one layer.
        train_head: what stands behind the backbone moves too, as it does in MeZO's released RoBERTa
            code (trap T32).
    """

    def __init__(self, *, r: int, alpha: float, targets: str, train_head: bool = False) -> None:
        if r < 1:
            raise bad_value("r", r, "a whole number >= 1")
        if not 0 < alpha < float("inf"):
            raise bad_value("alpha", alpha, "a number > 0")
        check_pattern("targets", targets)
        self.r, self.alpha, self.targets, self.train_head = r, alpha, targets, train_head

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        model = loaded.model
        head = head_parameters(loaded, "tuning.train_head") if self.train_head else set()
        layers = linear_layers(model, self.targets, "targets")
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft divides by r, whole or not
            target_modules=list(layers),
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
        )
        inject(model, config)
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                _start(name, module, draws)
        X = moving(model, lambda name, x: ".lora_" in name or id(x) in head)
        return Tuned(X, model, whole=False)


def _start(name: str, layer: LoraLayer, draws: Draws) -> None:
    A = layer.lora_A["default"].get_parameter("weight")
    B = layer.lora_B["default"].get_parameter("weight")
    dtype, shape = new_dtype(layer), tuple(A.shape)
    uniform = draws.uniform_range("lora_A", 0, name, 0, prod(shape)).view(shape)
    start(A, (2 * uniform.to(dtype) - 1) / sqrt(shape[1]))
    start(B, torch.zeros(B.shape, dtype=dtype))
