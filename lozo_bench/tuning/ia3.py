"""(IA)^3: each unit of the keys, the values and the feed-forward hidden layer gets a trained scale.

Source: Liu et al., arXiv 2205.05638. All scales are 1 at the start.
"""

from __future__ import annotations

import torch
from peft import IA3Config
from peft.tuners.ia3 import IA3Layer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, check_pattern, freeze_rest, linear_layers
from lozo_bench.tuning.injected import inject, new_dtype, set_initial_values


class Ia3:
    """Train scales of activations.

    Args:
        outputs: a regular expression. The outputs of the linear layers whose names match are
            scaled; it should match the key and value layers. In GPT-2 the same layer also computes
            the queries.
        inputs: a regular expression. The inputs of the linear layers whose names match are scaled;
            it should match the second feed-forward layers.
    """

    def __init__(self, *, outputs: str, inputs: str) -> None:
        check_pattern("outputs", outputs)
        check_pattern("inputs", inputs)
        self.outputs, self.inputs = outputs, inputs

    def config(self, model: PreTrainedModel) -> IA3Config:
        """Return peft's config for a model."""
        inputs = linear_layers(model, self.inputs, "inputs")
        layers = linear_layers(model, self.outputs, "outputs") | inputs
        return IA3Config(
            target_modules=list(layers),
            feedforward_modules=list(inputs),
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
        )

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`. Nothing is random."""
        model = loaded.model
        inject(model, self.config(model))
        for module in model.modules():
            if isinstance(module, IA3Layer):
                scales = module.ia3_l["default"]
                set_initial_values(scales, torch.ones(scales.shape, dtype=new_dtype(module)))
        X = freeze_rest(model, lambda name, _: ".ia3_l." in name)
        return Tuned(X, model, all_weights=False)
