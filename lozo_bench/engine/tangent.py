"""Derivatives along a direction by forward-mode differentiation: no backward pass, no graph."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from lozo_bench.engine.score import FullRank, Part, whole
from lozo_bench.engine.sites import Sites
from lozo_bench.errors import UserError


@torch.no_grad()
def slopes(sites: Sites, X: Mapping[str, Tensor], v: FullRank, parts: Sequence[Part]) -> Tensor:
    """Loss of each example where the weights X are, and its derivative along v.

    While it runs, dual numbers stand where ``sites`` say that the weights do; v is kept as tensors
    like X, rounded to their types. Attention is computed by torch's plain kernel, because the fused
    ones have no forward mode.

    Returns:
        [2, examples], float64 on the CPU.

    Raises:
        UserError: the losses have no derivative.
    """
    tangents = {name: torch.zeros_like(x, requires_grad=False) for name, x in X.items()}
    v.move(tangents, 1.0)
    found = [torch.empty(2, 0, dtype=torch.float64)]
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        with warnings.catch_warnings():  # torch's about itself, when it loads its rules
            warnings.simplefilter("ignore", DeprecationWarning)
            duals = {n: _dual(x.detach(), tangents[n]) for n, x in X.items()}
        with sites.holding(duals):
            found += [_of_part(part) for part in parts]
    return torch.cat(found, dim=1)


def _dual(x: Tensor, tangent: Tensor) -> Tensor:
    dual: Tensor = forward_ad.make_dual(x, tangent)  # type: ignore[no-untyped-call]
    return dual


def _of_part(part: Part) -> Tensor:
    losses, slope = forward_ad.unpack_dual(whole(part, 1)[0])  # type: ignore[no-untyped-call]
    if slope is None:
        raise UserError("objective: it has no derivative; this optimizer needs objective=loss")
    return torch.stack([losses, slope])
