"""AdaLoRA's form of LoRA: chosen matrices W become W + (alpha / r) P diag(E) Q.

Source: Zhang et al., "AdaLoRA: Adaptive budget allocation for parameter-efficient fine-tuning",
arXiv 2303.10512, with peft's layers. P in R^{m x r} and Q in R^{r x n} start normal with the
standard deviation 0.02, and E in R^r is zero. peft calls Q lora_A, E lora_E and P lora_B.

Alone, all r triplets of each matrix are trained. `allocation=adalora` takes the least important
ones away during training and keeps P and Q near orthogonal (`allocation/adalora.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from peft import AdaLoraConfig
from peft.tuners.adalora import SVDLinear
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lozo_bench.errors import bad_value
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, check_pattern, freeze_rest, linear_layers
from lozo_bench.tuning.injected import inject, new_dtype, set_initial_values

_STD = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """The parts of an adapted matrix by name: P [m, r], E [r, 1] and Q [r, n].

    Args:
        name: of the layer.
        P: the name of P.
        E: the name of E.
        Q: the name of Q.
    """

    name: str
    P: str
    E: str
    Q: str


class AdaLora:
    """Train matrices in the form of a singular value decomposition beside frozen ones.

    Args:
        r: how many triplets each matrix starts with.
        alpha: the product P diag(E) Q is multiplied by alpha / r.
        targets: a regular expression; the linear layers whose names match get an adapter.
    """

    def __init__(self, *, r: int, alpha: float, targets: str) -> None:
        if r < 1:
            raise bad_value("r", r, "a whole number >= 1")
        if not 0 < alpha < float("inf"):
            raise bad_value("alpha", alpha, "a number > 0")
        check_pattern("targets", targets)
        self.r, self.alpha, self.targets = r, alpha, targets

    def config(self, model: PreTrainedModel) -> AdaLoraConfig:
        """Return peft's config for a model. peft needs a number of steps and does not use it."""
        layers = linear_layers(model, self.targets, "targets")
        return AdaLoraConfig(
            init_r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft only divides it by r
            target_modules=list(layers),
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
            total_step=1,
        )

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        model = loaded.model
        inject(model, self.config(model))
        for name, layer in model.named_modules():
            if isinstance(layer, SVDLinear):
                _initialise(name, layer, draws)
        X = freeze_rest(model, lambda name, _: ".lora_" in name)
        return Tuned(X, model, all_weights=False)


def matrices(model: nn.Module) -> list[Matrix]:
    """Return the adapted matrices of a model, in the model's order."""
    return [
        Matrix(name, *(f"{name}.lora_{part}.default" for part in "BEA"))
        for name, layer in model.named_modules()
        if isinstance(layer, SVDLinear)
    ]


def _initialise(name: str, layer: SVDLinear, draws: Draws) -> None:
    dtype = new_dtype(layer)
    for role in ("lora_A", "lora_B"):
        x = layer.get_parameter(f"{role}.default")
        values = draws.normal(role, 0, {name: tuple(x.shape)}, dtype=dtype)[name]
        set_initial_values(x, _STD * values)
    E = layer.get_parameter("lora_E.default")
    set_initial_values(E, torch.zeros(E.shape, dtype=dtype))
