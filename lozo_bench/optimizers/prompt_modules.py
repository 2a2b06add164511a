"""Prompts as projections of a searched point z, for each layer that adds one.

Sources: BBT, arXiv 2201.03514; BBTv2, arXiv 2205.11200. A layer adds t vectors p to the hidden
states of t placeholder tokens (`tuning/deep_prompt.py`), which are a fixed random projection:

    (1)  p = P z,  P in R^{t width x d}

Under a normal projection and z ~ N(0, sigma^2 I), the entries of p have the standard deviation
alpha std, where std is that of what enters the layer; under a uniform one, sigma / sqrt(3).
"""

from __future__ import annotations

from torch import Tensor

from lozo_bench.engine.subspace import Subspace
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import Weights
from lozo_bench.optimizers.projections import Distribution, Projection, projection_std
from lozo_bench.randomness.draws import Draws

_PROMPT = ".deep_prompt.values"


def prompt_modules(
    X: Weights,
    draws: Draws,
    d: int,
    alpha: float,
    sigma: float,
    projection: Distribution,
) -> list[PromptModules]:
    """Return the prompt of each layer that has one, in order.

    Args:
        X: the weights by name; the prompts must be among them.
        draws: source of the projections.
        d: number of entries of z.
        alpha: factor of the normal projections.
        sigma: standard deviation of z at the start.
        projection: the distribution of P.

    Raises:
        UserError: there are weights, but no prompts; or further ones, which would not be trained.
    """
    names = [name for name in X if name.endswith(_PROMPT)]
    if X and not names:
        raise UserError(
            "optimizer: it searches for prompts, and finds none among the trained weights "
            f"({', '.join(list(X)[:3])}, ...); what to do: tuning=deep_prompt"
        )
    if others := [name for name in X if name not in names]:
        raise UserError(
            f"optimizer: it searches for prompts alone, and {others[0]} is to be trained, too; "
            "what to do: another optimizer, or model.kind=masked or causal, which need no new head"
        )
    return [
        PromptModules(
            name,
            X[name],
            Projection(draws, name, X[name].numel(), d, projection, len(names)),
            alpha=alpha,
            sigma=sigma,
        )
        for name in names
    ]


class PromptModules:
    """The prompt of one layer, as a function of z.

    Args:
        parameter: the name of the prompt.
        values: the prompt [1, t * width], which stays as it is.
        projection: P.
        alpha: factor of a normal P.
        sigma: standard deviation of z at the start.
    """

    def __init__(
        self, parameter: str, values: Tensor, projection: Projection, *, alpha: float, sigma: float
    ) -> None:
        self.parameter, self.d, self.P = parameter, projection.inputs, projection
        self.alpha, self.sigma = alpha, sigma
        self.device, self.dtype = values.device, wide(values.dtype)

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.parameter.removesuffix(_PROMPT)

    def at(self, Z: Tensor, std: float) -> Subspace:
        """Return the prompts of K points: U of ones [1, K], and a prompt in each column of V.

        Args:
            Z: the points [K, d].
            std: the standard deviation of what enters the layer.
        """
        p = self._prompts(Z, std)
        return Subspace({self.parameter: p.new_ones(1, len(Z))}, {self.parameter: p.T}, {})

    def spread(self, z: Tensor, std: float) -> dict[str, float]:
        """Return the standard deviation of the prompt's entries at a point z [d]."""
        return {"std_prompt": float(self._prompts(z[None], std).double().std(correction=0))}

    def _prompts(self, Z: Tensor, std: float) -> Tensor:
        """Return the prompts [K, t * width], equation (1)."""
        normal = self.P.distribution == "normal"
        s = projection_std(self.alpha, std, self.d, self.sigma) if normal else 1.0
        return s * self.P(Z.to(self.device, self.dtype))
