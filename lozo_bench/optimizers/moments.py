"""Adam's moments of a zeroth-order estimate c z, which is never stored.

Source: Malladi et al., arXiv 2305.17333, appendix B.2. With z ~ N(0, I) and g = c z:

    (1)  m <- beta1 m + (1 - beta1) g,     v <- beta2 v + (1 - beta2) g^2       (element by element)
    (2)  step: m / (1 - beta1^k) / ( sqrt(v / (1 - beta2^k)) + adam_eps )

k counts updates. Both moments are as large as the weights, and float32 for half-precision weights.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lozo_bench.engine.gaussian import Gaussian

Moment = Mapping[str, Tensor]


def accumulate(
    m: Moment, v: Moment, z: Gaussian, c: float, X: Mapping[str, Tensor], betas: tuple[float, float]
) -> None:
    """Apply equation (1), in place, to the moments of the weights X."""
    beta1, beta2 = betas
    for name, start, piece in z.pieces(X):
        g = piece * c
        here = slice(start, start + len(g))
        m[name].view(-1)[here].mul_(beta1).add_(g, alpha=1 - beta1)
        v[name].view(-1)[here].mul_(beta2).addcmul_(g, g, value=1 - beta2)


def adam_direction(
    m: Tensor, v: Tensor, k: int, betas: tuple[float, float], adam_eps: float
) -> Tensor:
    """Return equation (2) for pieces of the moments of a weight, after k updates."""
    beta1, beta2 = betas
    root = (v / (1 - beta2**k)).sqrt_()
    return m / (1 - beta1**k) / root.add_(adam_eps)
