"""Checks of losses: their shape, whether they are finite, and whether a process was stopped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.errors import Stopped

# A process that was asked to stop returns this number instead of its losses. It takes part in the
# same sum as the losses, so that all processes notice it in the same step without a further
# message. No loss is as large (see `bounded`), and a sum or mean of it and losses fits float32.
STOPPED = 1e35
_LEAST_STOPPED = 1e30
_LARGEST_LOSS = 1e25


class NonFiniteLossError(RuntimeError):
    """A loss or gradient is not finite. The weights are what they were before the step."""


def bounded(losses: Tensor) -> Tensor:
    """Return the losses, with infinity in place of values that could be mistaken for STOPPED."""
    values = losses.detach()
    return torch.where(values.abs() > _LARGEST_LOSS, values * math.inf, losses)


def raise_if_stopped(losses: Tensor) -> None:
    """Raise Stopped if a process returned STOPPED instead of its losses."""
    if is_stopped(losses):
        raise Stopped


def is_stopped(losses: Tensor) -> bool:
    """Return whether STOPPED, or a mean of it and losses, is among these numbers."""
    large = losses.double().abs()
    return bool(((large > _LEAST_STOPPED) & large.isfinite()).any())


def unknown_losses(K: int, parts: Sequence[MicroBatch]) -> Tensor:
    """Return NaN losses [K, rows], to be filled in; float64 on the CPU."""
    size = sum(part.size for part in parts)
    return torch.full((K, size), math.nan, dtype=torch.float64)


def checked_losses(part: MicroBatch, copies: int) -> Tensor:
    """Return the losses [copies, size] of a micro-batch, on its device.

    Raises:
        ValueError: the micro-batch's function returns another shape.
    """
    losses = part.losses(copies)
    if losses.shape != (copies, part.size):
        raise ValueError(
            f"losses({copies}) of a part of {part.size} examples must be of shape "
            f"[{copies}, {part.size}], one loss for each example of each copy, and is of shape "
            f"{list(losses.shape)}"
        )
    return losses


def on_host(losses: Tensor) -> Tensor:
    """Return losses as float64 on the CPU, which waits for a GPU to compute them."""
    return losses.to("cpu", torch.float64)


def require_finite(losses: Tensor) -> Tensor:
    """Return losses [K, B] unchanged if each candidate's mean is finite. A zero is a valid loss.

    Raises:
        NonFiniteLossError: names the K mean losses.
    """
    means = losses.mean(1).tolist()
    if not all(math.isfinite(loss) for loss in means):
        raise NonFiniteLossError(f"the losses of this step are {', '.join(map(str, means))}")
    return losses
