"""Losses that are not finite, and the number that stands for a process that was asked to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.errors import Stopped

# In place of the losses of a process that was asked to stop. It goes through the same sum as they
# do, so that all processes see it in the same step and no further message is needed. No loss is as
# large (see `bounded`); float32 can still hold a sum of them, and so is a mean of it and losses.
STOPPED = 1e35


_LEAST_STOPPED = 1e30


_LARGEST_LOSS = 1e25


class NonFiniteLossError(RuntimeError):
    """A loss or gradient that is not finite. The weights are as they were before the step."""


def bounded(losses: Tensor) -> Tensor:
    """The same, with infinity in place of what could be taken for STOPPED."""
    values = losses.detach()
    return torch.where(values.abs() > _LARGEST_LOSS, values * math.inf, losses)


def raise_if_stopped(losses: Tensor) -> None:
    """Raise Stopped if one of the processes put STOPPED in place of its losses."""
    if is_stopped(losses):
        raise Stopped


def is_stopped(losses: Tensor) -> bool:
    """Whether STOPPED, or a mean of it and losses, is among these."""
    large = losses.double().abs()
    return bool(((large > _LEAST_STOPPED) & large.isfinite()).any())


def unknown_losses(K: int, parts: Sequence[MicroBatch]) -> Tensor:
    """Losses [K, B] of which none is known yet."""
    size = sum(part.size for part in parts)
    return torch.full((K, size), math.nan, dtype=torch.float64)


def checked_losses(part: MicroBatch, copies: int) -> Tensor:
    """Losses [copies, size] of a part, float64 on the CPU.

    Raises:
        ValueError: the part's closure gives something else.
    """
    losses = part.losses(copies)
    if losses.shape != (copies, part.size):
        raise ValueError(
            f"losses({copies}) of a part of {part.size} examples must be of shape "
            f"[{copies}, {part.size}], one loss for each example of each copy, and is of shape "
            f"{list(losses.shape)}"
        )
    return losses.to("cpu", torch.float64)


def require_finite(losses: Tensor) -> Tensor:
    """Losses [K, B] as they are, unless a candidate's mean is NaN or infinite.

    A zero is a loss like any other.

    Raises:
        NonFiniteLossError: naming the K mean losses.
    """
    means = losses.mean(1).tolist()
    if not all(math.isfinite(loss) for loss in means):
        raise NonFiniteLossError(f"the losses of this step are {', '.join(map(str, means))}")
    return losses
