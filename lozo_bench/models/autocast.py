"""Mixed precision: float32 weights, passes of which torch runs what it can in half precision."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from torch import nn


def autocast(model: nn.Module, device: str, dtype: torch.dtype) -> None:
    """Whoever calls the model gets a pass under ``torch.autocast``: losses, gradients, answers.

    ``device`` is the type of the device, such as ``cuda``. Weights and gradients stay float32; a
    cast of a weight is kept for one pass, as between two the weights may move.
    """
    forward = model.forward

    @wraps(forward)
    def cast(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype):
            return forward(*args, **kwargs)

    model.forward = cast
