"""Initialise a new classifier head on a pre-trained model: the only weights that may be random."""

from __future__ import annotations

from collections.abc import Collection

import torch
from transformers import PreTrainedModel

from lozo_bench.randomness.draws import Draws

# The module names that transformers gives to the head of a ...ForSequenceClassification.
HEADS = ("score", "classifier")


def head_weights(model: PreTrainedModel) -> set[str]:
    """Return the names of the classifier head's weights, or an empty set if there is no head."""
    names = (name for name, _ in model.named_parameters())
    return {name for name in names if name.split(".")[0] in HEADS}


def draw_head(model: PreTrainedModel, missing: Collection[str], seed: int) -> set[str]:
    """Initialise the head if all of it is missing from the checkpoint.

    The distribution is that of transformers: matrices are N(0, sigma^2), where sigma is
    ``init_std`` or ``initializer_range`` of config.json, or 0.02 if it has neither; biases are 0.
    The numbers depend on ``seed`` and the weight's name alone. A head of which only a part is
    missing is not touched, so that `check_loaded` refuses it.

    Args:
        model: the loaded model; its head is overwritten.
        missing: the names of the weights that the checkpoint does not have.
        seed: keys the draws.

    Returns:
        The names of the weights that were initialised.
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
