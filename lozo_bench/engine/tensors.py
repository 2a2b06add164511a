"""Small things about tensors that several rooms of the engine need."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 for float64: what half precision is computed in."""
    return torch.promote_types(dtype, torch.float32)


def is_half(x: Tensor) -> bool:
    """Whether x is bfloat16 or float16."""
    return x.dtype in (torch.bfloat16, torch.float16)


class Sent:
    """Small tensors that many weights share, sent once to each device and type they are needed in.

    A copy to a GPU for each weight would take longer than what it is for.
    """

    def __init__(self) -> None:
        self._there: dict[tuple[object, ...], Tensor] = {}

    def __call__(self, key: tuple[object, ...], make: Callable[[], Tensor], like: Tensor) -> Tensor:
        """What ``make`` makes, on the device and of the type of ``like``; made once a key."""
        key = (*key, like.device, like.dtype)
        if key not in self._there:
            self._there[key] = make().to(like)
        return self._there[key]
