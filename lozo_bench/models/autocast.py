"""Mixed precision: the weights stay float32, and forward passes run under ``torch.autocast``."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from torch import nn


def autocast(model: nn.Module, device: str, dtype: torch.dtype) -> None:
    """Make every call of ``model`` run under ``torch.autocast``.

    This covers losses, gradients and generated answers. Weights and gradients stay float32. The
    half-precision copy of a weight is kept for one forward pass only, because the weights may
    change between two passes.

    Args:
        model: its ``forward`` is replaced.
        device: the device type, such as ``cuda``.
        dtype: torch.bfloat16 or torch.float16.
    """
    forward = model.forward

    @wraps(forward)
    def autocast_forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype):
            return forward(*args, **kwargs)

    model.forward = autocast_forward
