"""C-LoRA: CMA-ES over low-rank modules of queries and keys, one layer after another.

Source: Jin, Liu, Tan, "Derivative-Free Optimization for Low-Rank Adaptation in Large Language
Models", arXiv 2403.01754. In each layer, W_Q and W_K get low-rank modules, all numbers of which are
a fixed random projection of d = 500 numbers z (`projections.py`):

    (1)  queries = x W_Q^T + x A_Q(z) B_Q(z),   keys = x W_K^T + x A_K(z) B_K(z)

For each layer i there is a CMA-ES with mean 0 and step size sigma at the start. At step t, with
i = t mod L and D all training rows:

    (2)  z_1, ..., z_lambda ~ CMA-ES_i
    (3)  f_k = F(model with z_k in layer i and the incumbents in all other layers; D)
    (4)  CMA-ES_i is told (z_k, f_k); the incumbent of layer i is its best point

The incumbent of a layer is the point that stays in the model while other layers are searched. One
evaluation of F, for one candidate on all training rows, is a call. A budget of B calls pays for
L floor(B / (lambda L)) steps.

The paper's text was not available. This is the algorithm of the code that its authors released
(github.com/stan-anony/derivative_free_lora_rank), without details of it that look like mistakes.
With `faithful=true` a run has these details too:

* B of every layer but the first keeps the uniform default of torch's linear layer (equation 4 of
  `projections.py`), so that its scale depends on sigma, and A's does not. Here B is scaled like A
  (`b_init=normal`).
* The statistics that A is scaled by come from the first candidate's forward pass, padding included.
  Here they come from the model without modules, and padding does not count.
* The incumbent is the best point that was ever told, although its loss is of another time, when
  the other layers had other incumbents. Here it is the best of the last population.
* Every 100 calls, dev is evaluated with the candidate that is being scored. Here it is evaluated
  with the incumbents. With `eval_every=5` and 20 candidates a turn, dev is evaluated as often as
  in the released code. With `faithful=true` it is not evaluated again after the last step.

Not reproduced: candidates scored under float16 autocast and incumbents used in float32; modules on
the keys and values in Llama, where the paper says queries and keys; causal models read at the last
position of a padded row.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Engine, Report, Score
from lozo_bench.optimizers.cma_es import CmaEs, StepSize
from lozo_bench.optimizers.layer_turns import LayerTurns, Look, needs_of_turns
from lozo_bench.optimizers.lora_modules import check_modules, lora_modules
from lozo_bench.optimizers.projections import Distribution
from lozo_bench.optimizers.search import Point
from lozo_bench.optimizers.search_options import (
    as_released,
    check_search_options,
    statistics_of,
)
from lozo_bench.randomness.draws import Draws


class CLora:
    """CMA-ES over low-rank modules.

    Args:
        engine: holds the weights X, which stay as they are, and the modules beside them.
        draws: source of the projections and of the populations.
        rank: r of the modules.
        intrinsic_dim: d, the numbers that are searched in each layer, a multiple of 4.
        popsize: lambda, the candidates of a step.
        budget: B, the number of calls.
        sigma: step size of CMA-ES at the start, normal projections are divided by it.
        alpha: normal projections are multiplied by it.
        bounds: each number of z stays between -bounds and bounds; None: no bounds.
        step_size: how CMA-ES adapts its step size: ``csa``, as published, or ``tpa``.
        diagonal: only the diagonal of the covariance matrix is adapted.
        projection: ``hidden_states``: normal, scaled by what enters the layer; ``random``: uniform,
            torch's default.
        b_init: how B is projected beside ``hidden_states`` in all layers but the first:
            ``normal``, like A, or ``uniform``. None: normal, or as released.
        incumbent: which point of CMA-ES the layer keeps. None: ``generation_best``, or as released.
        dev: what dev is evaluated with. ``incumbent``: that of each layer. ``candidate``: the same,
            but with the last candidate in the layer that was just searched. None: incumbent, or as
            released.
        faithful: options that are None have the released code's values, and A is scaled by its
            statistics.
    """

    needs = needs_of_turns()

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        rank: int,
        intrinsic_dim: int = 500,
        popsize: int = 20,
        budget: int = 8000,
        sigma: float = 1.0,
        alpha: float = 1.0,
        bounds: float | None = None,
        step_size: StepSize = "csa",
        diagonal: bool = False,
        projection: Literal["hidden_states", "random"] = "hidden_states",
        b_init: Distribution | None = None,
        incumbent: Point | None = None,
        dev: Look | None = None,
        faithful: bool = False,
    ) -> None:
        check_search_options(intrinsic_dim, budget, popsize, sigma, alpha)
        check_modules(rank, intrinsic_dim)
        if projection == "random" and b_init == "normal":
            raise bad_value(
                "b_init", b_init, "null or uniform, because projection=random is uniform"
            )
        look: Look = as_released(dev, faithful, "incumbent", "candidate")
        B: Distribution = as_released(b_init, faithful, "normal", "uniform")
        modules = lora_modules(engine.X, draws, intrinsic_dim, rank, alpha, sigma, projection, B)
        search = partial(
            CmaEs,
            draws,
            dimension=intrinsic_dim,
            sigma=sigma,
            popsize=popsize,
            bounds=bounds,
            step_size=step_size,
            diagonal=diagonal,
        )
        self.turns = LayerTurns(
            engine,
            modules,
            search,
            incumbent=as_released(incumbent, faithful, "generation_best", "best_ever"),
            statistics=statistics_of(projection == "hidden_states", faithful),
            look=look,
        )
        self.needs = needs_of_turns(budget, popsize, len(modules), look)
        self.lr, self.t = 0.0, 0

    def step(self, score: Score) -> Report:
        """Make one step: one population of one layer."""
        t, self.t = self.t, self.t + 1
        return self.turns.make(t, score)
