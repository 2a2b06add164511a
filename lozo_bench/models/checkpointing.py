"""Activation checkpointing: memory of one layer at a time, for another forward of each.

Source: Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174. transformers
does it only in layers in training mode; here the layers that it knows how to make again are made so
in eval mode too.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from lozo_bench.errors import bad_value


def checkpoint_layers(model: nn.Module) -> None:
    """Keep a layer's input for the backward pass, and make the rest again there.

    Passes without gradients are left as they are. Those with gradients are called with
    ``use_cache=False``: a layer made again would put its keys and values there twice.

    Raises:
        UserError: the model has no layers of which transformers says that it can be done.
    """
    layers = [x for x in model.modules() if isinstance(x, GradientCheckpointingLayer)]
    if not layers:
        none = f"false, as {type(model).__name__} has no layers for it"
        raise bad_value("model.gradient_checkpointing", True, none)
    for layer in layers:
        _checkpoint(layer)


def _checkpoint(layer: nn.Module) -> None:
    forward = layer.forward

    @wraps(forward)
    def made_again(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # In training mode the same elements must drop out again; else nothing is random.
        again = partial(checkpoint, use_reentrant=False, preserve_rng_state=layer.training)
        return again(forward, *args, **kwargs)

    layer.forward = made_again
