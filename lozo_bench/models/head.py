"""A new classifier head on a pre-trained model: the only weights that may be random."""

from __future__ import annotations

from collections.abc import Collection

import torch
from transformers import PreTrainedModel

from lozo_bench.engine.draws import Draws

# What transformers calls the head of a ...ForSequenceClassification.
HEADS = ("score", "classifier")


def head_weights(model: PreTrainedModel) -> set[str]:
    """The names of the weights of the classifier head; none where the model has no such head."""
    names = (name for name, _ in model.named_parameters())
    return {name for name in names if name.split(".")[0] in HEADS}


def draw_head(model: PreTrainedModel, missing: Collection[str], seed: int) -> set[str]:
    """Draw the head if the whole of it is ``missing`` from the checkpoint; returns what was drawn.

    Matrices are N(0, sigma^2) with the model's own sigma (``init_std`` or ``initializer_range`` of
    config.json, 0.02 where it has neither), as transformers has them, and biases 0; but the numbers
    depend on ``seed`` and the weight's name alone. A head of which only a part is missing is left.
    """
    head = head_weights(model)
    if not head or not head <= set(missing):
        return set()
    config = model.config
    sigma: float = getattr(config, "init_std", getattr(config, "initializer_range", 0.02))
    weights = {name: model.get_parameter(name) for name in sorted(head)}
    matrices = {name: tuple(weight.shape) for name, weight in weights.items() if weight.ndim > 1}
    drawn = Draws(seed).normal("classifier_head", 0, matrices)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(sigma * drawn.get(name, torch.zeros(weight.shape)))
    return head
