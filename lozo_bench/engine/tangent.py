"""Derivatives along a direction by forward-mode differentiation, without a backward pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from lozo_bench.engine.finite import checked_losses, on_host
from lozo_bench.engine.protocol import FullRank, MicroBatch
from lozo_bench.engine.sites import Sites
from lozo_bench.errors import UserError


@torch.no_grad()
def slopes(
    sites: Sites, X: Mapping[str, Tensor], v: FullRank, parts: Sequence[MicroBatch]
) -> Tensor:
    """Return each example's loss at the weights X and its derivative along v.

    During the forward passes, dual tensors replace the weights in the model. v is materialized as
    tensors like X and rounded to their dtypes. Attention uses torch's plain kernel, because the
    fused attention kernels do not support forward-mode differentiation.

    Args:
        sites: the modules of the model that hold the weights.
        X: the weights by name.
        v: the direction.
        parts: the micro-batches of the batch.

    Returns:
        Losses and derivatives, [2, examples], float64 on the CPU.

    Raises:
        UserError: the losses have no derivative.
    """
    tangents = {name: torch.zeros_like(x, requires_grad=False) for name, x in X.items()}
    v.move(tangents, 1.0)
    found = [torch.empty(2, 0, dtype=torch.float64)]
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        with warnings.catch_warnings():  # torch warns about its own code at first use
            warnings.simplefilter("ignore", DeprecationWarning)
            duals = {n: _dual(x.detach(), tangents[n]) for n, x in X.items()}
        with sites.holding(duals):
            found += [_of_part(part) for part in parts]
    return torch.cat(found, dim=1)


def _dual(x: Tensor, tangent: Tensor) -> Tensor:
    dual: Tensor = forward_ad.make_dual(x, tangent)  # type: ignore[no-untyped-call]
    return dual


def _of_part(part: MicroBatch) -> Tensor:
    """Return losses and derivatives, [2, size], of one micro-batch."""
    losses, slope = forward_ad.unpack_dual(checked_losses(part, 1)[0])  # type: ignore[no-untyped-call]
    if slope is None:
        raise UserError("objective: it has no derivative; set objective=loss for this optimizer")
    return on_host(torch.stack([losses, slope]))
