"""GRAD-NORM: ||dL/dA||_F + ||dL/dB||_F, the sum of the norms of a module's two gradients.

At B = 0 it is about s sqrt(r / (3 n)) times the norm of the gradient of the layer's weight, so it
depends on alpha, on r and on the layer's width n; see `normalise.py` and `dense_gradient.py`.

Source: Zhang et al., arXiv 2406.14956; released code, importance_testing/grad_norm.py:160-163.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lozo_bench.allocation.by_gradient import ByGradient
from lozo_bench.tuning.low_rank_modules import LowRankModule


class GradNorm(ByGradient):
    """Scores a module by the norms of its gradients."""

    def of(self, module: LowRankModule, sums: Sequence[Tensor]) -> Tensor:
        """See `ByGradient`."""
        return torch.stack([torch.linalg.vector_norm(x, dtype=torch.float64) for x in sums]).sum()
