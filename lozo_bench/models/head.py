"""Initialise a new classifier head on a pre-trained model: the only weights that may be random."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from transformers import PreTrainedModel

from lozo_bench.randomness.draws import Draws


def draw_head(model: PreTrainedModel, missing: Collection[str], seed: int) -> set[str]:
    """Initialise those parts of a classifier's head that the checkpoint does not have.

    A head has one part, such as ``score`` or ``classifier``, or several: BERT, for example, has a
    pooler in front, which a checkpoint of a masked model may lack. If the last part, which gives
    the logits, is in the checkpoint, or if only some weights of a part are, nothing of it is
    touched, so that `check_loaded` refuses what is missing.

    The distribution is that of transformers: matrices are N(0, sigma^2), where sigma is
    ``init_std`` or ``initializer_range`` of config.json, or 0.02 if it has neither; biases are 0,
    and the scales of a normalisation 1. The numbers depend on ``seed`` and the weight's name alone.

    Args:
        model: the loaded classifier; the new parts of its head are overwritten.
        missing: the names of the weights that the checkpoint does not have.
        seed: keys the draws.

    Returns:
        The names of the weights that were initialised.
    """
    absent = set(missing)
    parts = _parts(model)
    if not parts or not parts[-1] <= absent:
        return set()
    new = sorted(name for part in parts if part <= absent for name in part)
    config = model.config
    sigma: float = getattr(config, "init_std", getattr(config, "initializer_range", 0.02))
    weights = {name: model.get_parameter(name) for name in new}
    matrices = {name: tuple(weight.shape) for name, weight in weights.items() if weight.ndim > 1}
    drawn = Draws(seed).normal("classifier_head", 0, matrices)
    with torch.no_grad():
        for name, weight in weights.items():
            if name in drawn:
                weight.copy_(sigma * drawn[name])
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
    return set(new)


def _parts(model: PreTrainedModel) -> list[set[str]]:
    """Return the names of the weights of each part of the head, the part with the logits last."""
    trunk: nn.Module = model.base_model
    outside = [(name, part) for name, part in model.named_children() if part is not trunk]
    inside = [
        (name, part)
        for name, part in model.named_modules()
        if part is getattr(trunk, "pooler", None) and part is not None
    ]
    parts = [{f"{at}.{name}" for name, _ in x.named_parameters()} for at, x in inside + outside]
    return [part for part in parts if part]
