"""The low-rank modules of a layer's queries and keys, as projections of a searched point z.

Source: Jin, Liu, Tan, "Derivative-Free Optimization for Low-Rank Adaptation in Large Language
Models", arXiv 2403.01754. z in R^d consists of four equal parts, each with a projection of its own:

    (1)  A_Q = P_1 z_1,  B_Q = P_2 z_2,  A_K = P_3 z_3,  B_K = P_4 z_4
    (2)  queries = x W_Q^T + x A_Q B_Q,   keys = x W_K^T + x A_K B_K
         with A in R^{inputs x r} and B in R^{r x outputs}

A normal projection is scaled by sqrt(d), as in the released code, although a part has only d/4
entries. So for z ~ N(0, sigma^2 I) the entries of a projected matrix have the standard deviation
alpha std / 2, where std is that of what enters the layer, and under a uniform projection
sigma / sqrt(3).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.subspace import Subspace
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Weights, check_count
from lozo_bench.optimizers.projections import Distribution, Projection, projection_std
from lozo_bench.optimizers.queries_keys import Attention, Matrix, attention_layers
from lozo_bench.randomness.draws import Draws


def check_modules(rank: int, intrinsic_dim: int) -> None:
    """Check the size of the modules and of z.

    Raises:
        BadValueError: an option is out of range; the error names it.
    """
    check_count("rank", rank)
    if intrinsic_dim % 4:
        raise bad_value("intrinsic_dim", intrinsic_dim, "a multiple of 4: z has four equal parts")


def lora_modules(
    X: Weights,
    draws: Draws,
    d: int,
    rank: int,
    alpha: float,
    sigma: float,
    projection: Literal["hidden_states", "random"],
    b_init: Distribution,
) -> list[LoraModules]:
    """Return the modules of each layer.

    The first layer's B is always projected like its A, as in the released code.

    Args:
        X: the weights by name.
        draws: source of the projections.
        d: number of entries of z.
        rank: r.
        alpha: factor of the normal projections.
        sigma: standard deviation of z at the start.
        projection: ``hidden_states``: A is projected by a normal matrix, and B by that of
            ``b_init``; ``random``: both are projected by uniform ones.
        b_init: how B is projected in all layers but the first.
    """
    layers = attention_layers(X)
    random = projection == "random"
    return [
        LoraModules(
            layer,
            X,
            draws,
            d=d,
            rank=rank,
            alpha=alpha,
            sigma=sigma,
            A="uniform" if random else "normal",
            B="uniform" if random else ("normal" if i == 0 else b_init),
            layers=len(layers),
        )
        for i, layer in enumerate(layers)
    ]


class LoraModules:
    """The low-rank modules of one layer's queries and keys, as a function of z.

    Args:
        attention: the layer's matrices W_Q and W_K.
        X: the weights by name.
        draws: source of the projections.
        d: number of entries of z, a multiple of 4.
        rank: r.
        alpha: factor of the normal projections.
        sigma: standard deviation of z at the start.
        A: distribution of the projections to A_Q and A_K.
        B: distribution of the projections to B_Q and B_K.
        layers: how many layers there are.
    """

    def __init__(
        self,
        attention: Attention,
        X: Weights,
        draws: Draws,
        *,
        d: int,
        rank: int,
        alpha: float,
        sigma: float,
        A: Distribution,
        B: Distribution,
        layers: int,
    ) -> None:
        self.attention, self.d, self.rank = attention, d, rank
        self.alpha, self.sigma = alpha, sigma
        weight = X[attention.W_Q.name]
        self.device, self.dtype = weight.device, wide(weight.dtype)
        self.projections = [
            Projection(draws, f"{attention.name}.{name}", rank * size, d // 4, kind, 4 * layers)
            for name, size, kind in (
                ("A_Q", attention.W_Q.inputs, A),
                ("B_Q", attention.W_Q.outputs, B),
                ("A_K", attention.W_K.inputs, A),
                ("B_K", attention.W_K.outputs, B),
            )
        ]

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.attention.name

    def at(self, Z: Tensor, std: float) -> Subspace:
        """Return the modules of K points: K blocks of columns, side by side, for each weight.

        Args:
            Z: the points [K, d].
            std: the standard deviation of what enters the layer.
        """
        A_Q, B_Q, A_K, B_K = self._matrices(Z, std)
        W_Q, W_K = self.attention.W_Q, self.attention.W_K
        if W_Q.name == W_K.name:
            return _both_as_columns([(W_Q, A_Q, B_Q), (W_K, A_K, B_K)])
        return Subspace(
            {W_Q.name: _columns(B_Q.mT), W_K.name: _columns(B_K.mT)},
            {W_Q.name: _columns(A_Q), W_K.name: _columns(A_K)},
            {},
        )

    def spread(self, z: Tensor, std: float) -> dict[str, float]:
        """Return the standard deviations of the entries of A, of B and of A B at a point z [d].

        Those of the queries' and the keys' matrices together.
        """
        A_Q, B_Q, A_K, B_K = (x[0].double() for x in self._matrices(z[None], std))
        products = [_moments_of_product(A_Q, B_Q), _moments_of_product(A_K, B_K)]
        count, total, squares = (sum(numbers) for numbers in zip(*products, strict=True))
        return {
            "std_A": _std([A_Q, A_K]),
            "std_B": _std([B_Q, B_K]),
            "std_dW": sqrt(max(0.0, squares / count - (total / count) ** 2)),
        }

    def _matrices(self, Z: Tensor, std: float) -> list[Tensor]:
        """Return A_Q [K, inputs, r], B_Q [K, r, outputs], A_K and B_K, equation (1)."""
        s = projection_std(self.alpha, std, self.d, self.sigma)
        parts = Z.to(self.device, self.dtype).chunk(4, dim=1)
        flat = [
            (s if P.distribution == "normal" else 1.0) * P(part)
            for P, part in zip(self.projections, parts, strict=True)
        ]
        return [
            x.view(len(Z), self.rank, -1) if i % 2 else x.view(len(Z), -1, self.rank)
            for i, x in enumerate(flat)
        ]


def _both_as_columns(modules: Sequence[tuple[Matrix, Tensor, Tensor]]) -> Subspace:
    """Return the modules of several slices of one weight; each fills its own outputs, [inputs, m].

    A candidate has the columns of all slices, and they are zero outside their slice.
    """
    weight = modules[0][0]
    K, r, _ = modules[0][2].shape
    inputs = torch.cat([A for _, A, _ in modules], dim=2)
    outputs = inputs.new_zeros(K, inputs.shape[2], weight.whole)
    for i, (matrix, _, B) in enumerate(modules):
        outputs[:, i * r : (i + 1) * r, matrix.start : matrix.start + matrix.outputs] = B
    sides = {weight.name: _columns(inputs)}, {weight.name: _columns(outputs.mT)}
    return Subspace(*(sides if weight.transposed else sides[::-1]), {})


def _columns(x: Tensor) -> Tensor:
    """Put the matrices [K, rows, r] side by side: [rows, K r]."""
    return x.transpose(0, 1).reshape(x.shape[1], -1).contiguous()


def _moments_of_product(A: Tensor, B: Tensor) -> tuple[int, float, float]:
    """Return the number of entries of A B, their sum and the sum of their squares."""
    total = float(A.sum(0) @ B.sum(1))
    squares = float(((A.T @ A) * (B @ B.T)).sum())
    return len(A) * B.shape[1], total, squares


def _std(matrices: Sequence[Tensor]) -> float:
    return float(torch.cat([x.flatten() for x in matrices]).std(correction=0))
