"""BBT: CMA-ES over the prompt that the first layer reads.

Source: Sun et al., "Black-Box Tuning for Language-Model-as-a-Service", arXiv 2201.03514. The
prompt, t vectors that are added to the embeddings of t placeholder tokens, is a fixed random
projection of d = 500 numbers z (`prompt_modules.py`). At each step, with D all training rows:

    (1)  z_1, ..., z_lambda ~ CMA-ES
    (2)  f_k = F(model with the prompt P z_k; D)
    (3)  CMA-ES is told (z_k, f_k); the incumbent is its best point

A budget of B calls, evaluations of F, pays for floor(B / lambda) steps, 400 for 8000 calls and 20
candidates. The authors advise B = 20000 for DBPedia, and hinge loss for MRPC, RTE and SNLI.

The defaults are those of the code that the authors released last
(github.com/txsun1997/Black-Box-Tuning): P normal with the standard deviation
alpha std(word embeddings) / (sqrt(d) sigma), sigma 1, no bounds, 20 candidates, cross-entropy. The
code of the paper (ICML 2022, until May 2022) had P uniform, sigma 0.5, bounds 5, 4 + 3 ln d = 22
candidates, hinge loss, and dev loss to select by:

    optimizer.projection=uniform optimizer.sigma=0.5 optimizer.bounds=5 optimizer.popsize=22
    loss=hinge task.select=dev_loss

What differs from the released code; `dev=candidate`, or `faithful=true`, does as released:

* Every 100 calls, dev is evaluated with the candidate that is being scored. Here it is evaluated
  with the incumbent. With `eval_every=5` and 20 candidates a step, dev is evaluated as often as
  in the released code.

Not reproduced:

* CMA-ES can end the released run by rules of its own, before the budget is spent.
* The released code starts tasks on pairs of sentences from prompts that were trained on MNLI.
* Its option `--parallel` counts a population that shares a forward pass as one call.
* With some tokenizers its rows have fewer placeholders than 50: 49 with GPT-2's
  (`tuning/deep_prompt.py`).
"""

from __future__ import annotations

from functools import partial

from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import Engine, Report, Score
from lozo_bench.optimizers.cma_es import CmaEs, StepSize
from lozo_bench.optimizers.layer_turns import LayerTurns, Look, needs_of_turns
from lozo_bench.optimizers.projections import Distribution
from lozo_bench.optimizers.prompt_modules import prompt_modules
from lozo_bench.optimizers.search import Point
from lozo_bench.optimizers.search_options import (
    as_released,
    check_search_options,
    statistics_of,
)
from lozo_bench.randomness.draws import Draws


class Bbt:
    """CMA-ES over one prompt.

    Args:
        engine: holds the weights X, which stay as they are, and the prompt beside them.
        draws: source of the projection and of the populations.
        intrinsic_dim: d, the numbers that are searched.
        popsize: lambda, the candidates of a step.
        budget: B, the number of calls.
        sigma: step size of CMA-ES at the start, a normal projection is divided by it.
        alpha: a normal projection is multiplied by it.
        bounds: each number of z stays between -bounds and bounds; None: no bounds.
        step_size: how CMA-ES adapts its step size: ``csa``, as published, or ``tpa``.
        diagonal: only the diagonal of the covariance matrix is adapted.
        projection: ``normal``, scaled by the word embeddings, or ``uniform``, torch's default.
        incumbent: which point of CMA-ES is kept.
        dev: what dev is evaluated with: the ``incumbent``, or the last ``candidate`` of the step.
            None: incumbent, or as released.
        faithful: options that are None have the released code's values.
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
        incumbent: Point = "best_ever",
        dev: Look | None = None,
        faithful: bool = False,
    ) -> None:
        check_search_options(intrinsic_dim, budget, popsize, sigma, alpha)
        prompts = prompt_modules(engine.X, draws, intrinsic_dim, alpha, sigma, projection)
        if len(prompts) > 1:
            raise UserError(
                f"optimizer=bbt: it searches for one prompt, and there are {len(prompts)}; what to "
                "do: tuning.layers=first, or optimizer=bbt_v2"
            )
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
            incumbent=incumbent,
            statistics=statistics_of(projection == "normal", faithful=False),
            look=look,
        )
        self.needs = needs_of_turns(budget, popsize, len(prompts), look)
        self.lr, self.t = 0.0, 0

    def step(self, score: Score) -> Report:
        """Make one step: one population."""
        t, self.t = self.t, self.t + 1
        return self.turns.make(t, score)
