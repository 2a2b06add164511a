"""BBTv2: CMA-ES over the prompts that all layers read, one layer after another.

Source: Sun et al., "BBTv2: Towards a Gradient-Free Future with Large Language Models",
arXiv 2205.11200. Each layer adds t vectors to the hidden states of t placeholder tokens. They are a
fixed random projection P_i of d = 500 numbers z (`prompt_modules.py`). For each layer i there is a
CMA-ES with mean 0 and step size sigma at the start. At step t, with i = t mod L and D all training
rows:

    (1)  z_1, ..., z_lambda ~ CMA-ES_i
    (2)  f_k = F(model with P_i z_k in layer i and the incumbents in all other layers; D)
    (3)  CMA-ES_i is told (z_k, f_k); the incumbent of layer i is its best point

    P_i normal with the standard deviation  alpha std_i / (sqrt(d) sigma)

Here std_0 is the standard deviation of the word embeddings, and std_i that of what enters layer i.
A budget of B calls, evaluations of F, pays for L floor(B / (lambda L)) steps.

Which sigma and alpha the published numbers used is in no public file. The command that the authors
show, for AG News, has sigma = alpha = 0.2; the defaults of their code are 1 and 1. Until October
2022 that code had sigma1 = 1 for the first layer and sigma2 = 0.2 for the others; for SNLI they
advised sigma2 = 0.3 with hinge loss.

What differs from the released code (github.com/txsun1997/Black-Box-Tuning). With `faithful=true` a
run does as released:

* std_i comes from the first candidate's forward pass, padding included. Here it comes from the
  model without prompts, and padding does not count.
* The incumbent is the best point that was ever told, although its loss is of another time, when
  the other layers had other incumbents. Here it is the best of the last population.
* Every 100 calls, dev is evaluated with the candidate that is being scored. Here it is evaluated
  with the incumbents. With `eval_every=5` and 20 candidates a turn, dev is evaluated as often as
  in the released code. With `faithful=true` it is not evaluated again after the last step.

Not reproduced: with some tokenizers the released code's rows have fewer placeholders than 50, such
as 49 with GPT-2's (`tuning/deep_prompt.py`).
"""

from __future__ import annotations

from functools import partial

from lozo_bench.optimizers.base import Engine, Report, Score
from lozo_bench.optimizers.cma_es import CmaEs, StepSize
from lozo_bench.optimizers.layer_turns import LayerTurns, Look, needs_of_turns
from lozo_bench.optimizers.projections import Distribution
from lozo_bench.optimizers.prompt_modules import prompt_modules
from lozo_bench.optimizers.search import Point
from lozo_bench.optimizers.search_options import as_released, check_search_options, statistics_of
from lozo_bench.randomness.draws import Draws


class BbtV2:
    """CMA-ES over the prompts of all layers.

    Args:
        engine: holds the weights X, which stay as they are, and the prompts beside them.
        draws: source of the projections and of the populations.
        intrinsic_dim: d, the numbers that are searched in each layer.
        popsize: lambda, the candidates of a step.
        budget: B, the number of calls.
        sigma: step size of CMA-ES at the start, normal projections are divided by it.
        alpha: normal projections are multiplied by it.
        bounds: each number of z stays between -bounds and bounds; None: no bounds.
        step_size: how CMA-ES adapts its step size: ``csa``, as published, or ``tpa``.
        diagonal: only the diagonal of the covariance matrix is adapted.
        projection: ``normal``, scaled by what enters the layer, or ``uniform``, torch's default.
        incumbent: which point of CMA-ES the layer keeps. None: ``generation_best``, or as released.
        dev: what dev is evaluated with: the ``incumbent`` of each layer, or, in place of the last
            one, the last ``candidate`` of the step. None: incumbent, or as released.
        faithful: options that are None have the released code's values, and so do the statistics.
    """

    needs = needs_of_turns()

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        intrinsic_dim: int = 500,
        popsize: int = 20,
        budget: int = 8000,
        sigma: float = 1.0,
        alpha: float = 1.0,
        bounds: float | None = None,
        step_size: StepSize = "csa",
        diagonal: bool = False,
        projection: Distribution = "normal",
        incumbent: Point | None = None,
        dev: Look | None = None,
        faithful: bool = False,
    ) -> None:
        check_search_options(intrinsic_dim, budget, popsize, sigma, alpha)
        prompts = prompt_modules(engine.X, draws, intrinsic_dim, alpha, sigma, projection)
        look: Look = as_released(dev, faithful, "incumbent", "candidate")
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
            prompts,
            search,
            incumbent=as_released(incumbent, faithful, "generation_best", "best_ever"),
            statistics=statistics_of(projection == "normal", faithful),
            look=look,
        )
        self.needs = needs_of_turns(budget, popsize, len(prompts), look)
        self.lr, self.t = 0.0, 0

    def step(self, score: Score) -> Report:
        """Make one step: one population of one layer."""
        t, self.t = self.t, self.t + 1
        return self.turns.make(t, score)
