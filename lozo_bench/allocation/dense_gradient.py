"""The norm ||dL/dW||_F of the gradient of the weight that a module would change.

It depends on none of A, B, r and alpha, so it differs between modules from the first step on, and
modules of other ranks and other alphas compare. Ours; GRAD-NORM of a module at B = 0 estimates it,
through the r random rows of A.

For a shortcut, W is the square matrix that the shortcut would be without its low rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lozo_bench.allocation.by_gradient import ByGradient
from lozo_bench.tuning.low_rank_modules import LowRankModule


class DenseGradient(ByGradient):
    """Scores a module by the gradient of the weight beside which it stands.

    The sum of dL/dW [m, n] is kept for each module while scores are taken: as much memory as the
    layers' weights in float32.
    """

    def observe(self, module: LowRankModule, x: Tensor, G: Tensor) -> Sequence[Tensor]:
        """See `ByGradient`."""
        return [G.T @ x]

    def of(self, module: LowRankModule, sums: Sequence[Tensor]) -> Tensor:
        """See `ByGradient`."""
        norm: Tensor = torch.linalg.vector_norm(sums[0], dtype=torch.float64)
        return norm
