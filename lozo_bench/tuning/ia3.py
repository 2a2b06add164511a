"""(IA)^3: keys, values and what feed-forward layers have inside are scaled, each unit by a number.

Source: Liu et al., arXiv 2205.05638. The scales are one at the start.
"""

from __future__ import annotations

import torch
from peft import IA3Config
from peft.tuners.ia3 import IA3Layer
from transformers.pytorch_utils import Conv1D

from lozo_bench.engine.draws import Draws
from lozo_bench.models.load import Loaded
from lozo_bench.tuning.base import Tuned, check_pattern, linear_layers, moving
from lozo_bench.tuning.injected import inject, new_dtype, start


class Ia3:
    """Scales of activations move.

    Args:
        outputs: a regular expression; linear layers in whose name it is found have their outputs
            scaled: those of keys and values. In GPT-2 queries are part of the same layer.
        inputs: the same for inputs: of the second feed-forward layers.
    """

    def __init__(self, *, outputs: str, inputs: str) -> None:
        check_pattern("outputs", outputs)
        check_pattern("inputs", inputs)
        self.outputs, self.inputs = outputs, inputs

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`. Nothing is drawn."""
        model = loaded.model
        inputs = linear_layers(model, self.inputs, "inputs")
        layers = linear_layers(model, self.outputs, "outputs") | inputs
        config = IA3Config(
            target_modules=list(layers),
            feedforward_modules=list(inputs),
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
        )
        inject(model, config)
        for module in model.modules():
            if isinstance(module, IA3Layer):
                scales = module.ia3_l["default"]
                start(scales, torch.ones(scales.shape, dtype=new_dtype(module)))
        X = moving(model, lambda name, _: ".ia3_l." in name)
        return Tuned(X, model, whole=False)
