"""Carriers: the layers without parameters that peft's LoRA layers of shortcuts stand beside."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Carrier(nn.Linear):
    """A square linear layer that is zero and has no matrix.

    peft sees an ordinary linear layer of this width and puts a LoRA layer around it, whose output
    is then s B A x alone. A matrix of zeros would take width^2 numbers and a product with them.

    Args:
        width: the width of the hidden states.
        like: a weight of the block, whose device and dtype it takes.
    """

    def __init__(self, width: int, like: Tensor) -> None:
        nn.Module.__init__(self)
        self.in_features = self.out_features = width
        self.weight = nn.Parameter(torch.empty(0, device=like.device, dtype=like.dtype))
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """Return zero, a number that can be added to anything."""
        return x.new_zeros(())
