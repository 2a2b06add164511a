"""Zeroth-order steps of the weights theta, from differences of several mean losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.directions import Given
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.engine.protocol import Engine
from lozo_bench.engine.subspace import NOWHERE, Subspace, along
from lozo_bench.engine.terms import with_prefix
from lozo_bench.engine.together import Term, losses_together
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import check_count, check_positive
from lozo_bench.optimizers.low_rank import LowRankDirections
from lozo_bench.optimizers.mezo_momentum import zeros_like_weights
from lozo_bench.optimizers.moments import accumulate, adam_direction
from lozo_bench.randomness.draws import Draws

_BETAS, _ADAM_EPS = (0.9, 0.999), 1e-8
Direction = Gaussian | Subspace


@dataclass(frozen=True)
class BackboneOptions:
    """How theta is moved.

    Args:
        directions: ``full_rank``, MeZO's z ~ N(0, I), or ``low_rank``, LOZO's U V^T.
        rank: r of U V^T.
        nu: number of steps for which V is kept.
        eps: distance from theta at which losses are taken.
        fd: ``forward``: differences from the loss at theta; ``central``: between both sides.
        update: ``sgd``, or ``adam``, which keeps two moments of the size of theta.

    Raises:
        BadValueError: an option is out of range, or Adam is given with low-rank directions.
    """

    directions: Literal["full_rank", "low_rank"]
    rank: int
    nu: int
    eps: float
    fd: Literal["forward", "central"]
    update: Literal["sgd", "adam"]

    def __post_init__(self) -> None:
        check_count("rank", self.rank)
        check_count("nu", self.nu)
        check_positive("eps", self.eps)
        for key, allowed in (
            ("directions", ("full_rank", "low_rank")),
            ("fd", ("forward", "central")),
            ("update", ("sgd", "adam")),
        ):
            if getattr(self, key) not in allowed:
                raise bad_value(key, getattr(self, key), " or ".join(allowed))
        if self.update == "adam" and self.directions == "low_rank":
            raise bad_value(
                "upper", "adam", "sgd with directions=low_rank: its steps are not U V^T"
            )


class Backbone:
    """The weights theta.

    Args:
        engine: holds them.
        draws: source of the directions.
        options: how they are moved.
    """

    def __init__(self, engine: Engine, draws: Draws, options: BackboneOptions) -> None:
        self.engine, self.draws, self.options = engine, draws, options
        self.low_rank = LowRankDirections(engine.X, draws, options.rank, options.nu)
        self.m: dict[str, Tensor] = {}
        self.v: dict[str, Tensor] = {}
        self.updates = 0

    def direction(self, k: int) -> Direction:
        """Return the direction z of step k."""
        if self.options.directions == "low_rank":
            return self.low_rank.draw(k)
        return Gaussian(self.draws, k)

    def slopes(
        self, z: Direction, terms: Sequence[Term], at_theta: Sequence[float | None]
    ) -> tuple[list[float], list[float]]:
        """Return the slope of each mean loss along z, and its value at theta.

            slope = ( L(theta + eps z) - L(theta) ) / eps                fd=forward
            slope = ( L(theta + eps z) - L(theta - eps z) ) / (2 eps)    fd=central

        Args:
            z: the direction.
            terms: the mean losses.
            at_theta: those at theta, as far as they are known. With ``fd=central`` none is needed,
                and the mean of both sides is returned as the value.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
        """
        eps = self.options.eps
        if self.options.fd == "central":
            plus, minus = losses_together(terms, z, (eps, -eps))
            return ((plus - minus) / (2 * eps)).tolist(), ((plus + minus) / 2).tolist()
        unknown = [i for i, loss in enumerate(at_theta) if loss is None]
        if len(unknown) == len(terms) and isinstance(z, Subspace):  # both share a forward pass
            here, plus = losses_together(terms, z, (0.0, eps))
            return ((plus - here) / eps).tolist(), here.tolist()
        here = torch.tensor([loss or 0.0 for loss in at_theta], dtype=torch.float64)
        if unknown:
            here[unknown] = losses_together([terms[i] for i in unknown], NOWHERE, (0.0,))[0]
        (plus,) = losses_together(terms, z, (eps,))
        return ((plus - here) / eps).tolist(), here.tolist()

    def move(self, z: Direction, c: float, lr: float) -> None:
        """Update theta: by -lr c z, or by Adam with the gradient c z."""
        if isinstance(z, Subspace):
            self.engine.move(z, along(z, -lr * c))
        elif self.options.update == "sgd":
            self.engine.full_rank_move(z, -lr * c)
        else:
            self._accumulate(z, c)
            self.engine.full_rank_move(Given(self._adam_step), -lr)

    def state(self) -> dict[str, Tensor]:
        """Return the moments; everything else can be made again."""
        moments = {f"m/{name}": x for name, x in self.m.items()}
        moments |= {f"v/{name}": x for name, x in self.v.items()}
        return moments | {"updates": torch.tensor(self.updates)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` returned."""
        self.low_rank.load_state({})
        self.updates = int(state["updates"])
        self.m, self.v = (
            {name: x.to(self.engine.X[name].device) for name, x in with_prefix(kind, state).items()}
            for kind in ("m", "v")
        )

    def _accumulate(self, z: Gaussian, c: float) -> None:
        if not self.updates:
            self.m, self.v = zeros_like_weights(self.engine), zeros_like_weights(self.engine)
        self.updates += 1
        accumulate(self.m, self.v, z, c, self.engine.X, _BETAS)

    def _adam_step(self, name: str, start: int, stop: int) -> Tensor:
        m, v = (moment[name].view(-1)[start:stop] for moment in (self.m, self.v))
        return adam_direction(m, v, self.updates, _BETAS, _ADAM_EPS)
