"""Activation checkpointing: the backward pass runs each layer's forward again, which saves memory.

Only one layer's activations are held at a time. Source: Chen et al., "Training deep nets with
sublinear memory cost", arXiv 1604.06174. transformers checkpoints its layers only in training mode.
Here the same layers (subclasses of GradientCheckpointingLayer) are checkpointed in eval mode too.
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
    """Make each layer keep only its input for the backward pass and recompute the rest there.

    Forward passes without gradients are unchanged. A pass with gradients must be called with
    ``use_cache=False``: a recomputed layer would write its keys and values into the cache twice.

    Raises:
        UserError: the model has no layers that transformers supports checkpointing for.
    """
    layers = [x for x in model.modules() if isinstance(x, GradientCheckpointingLayer)]
    if not layers:
        allowed = f"false, as {type(model).__name__} has no layers that support it"
        raise bad_value("model.gradient_checkpointing", True, allowed)
    for layer in layers:
        _checkpoint(layer)


def _checkpoint(layer: nn.Module) -> None:
    forward = layer.forward

    @wraps(forward)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # In training mode the recomputation must drop out the same elements. In eval mode nothing
        # is random, so the generator states need not be saved.
        recompute = partial(checkpoint, use_reentrant=False, preserve_rng_state=layer.training)
        return recompute(forward, *args, **kwargs)

    layer.forward = checkpointed
