"""F-LoRA: fireworks over low-rank modules of queries and keys, one layer after another.

Source: Jin, Liu, Tan, "Derivative-Free Optimization for Low-Rank Adaptation in Large Language
Models", arXiv 2403.01754, which names a fireworks algorithm beside CMA-ES. This is C-LoRA
(`c_lora.py`) with the search of `fireworks.py` in each layer:

    (1)  queries = x W_Q^T + x A_Q(z) B_Q(z),   keys = x W_K^T + x A_K(z) B_K(z)
    (2)  z_1, ..., z_lambda: the sparks of the fireworks of layer i = t mod L
    (3)  f_k = F(model with z_k in layer i and the incumbents in all other layers; D)
    (4)  the fireworks of layer i are told (z_k, f_k); the incumbent of layer i is its best point

This is no reproduction. The paper's text was not available, and the code that its authors released
contains no fireworks algorithm: its file for F-LoRA runs CMA-ES, and its option for the algorithm
is never read. Which variant was used, and with which constants, is not known. The two variants here
are those of the authors' laboratory that are best documented, with their published constants; only
the amplitude is ours: theirs is as wide as the search space, so that every spark would be a random
point of it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from lozo_bench.optimizers.base import Engine, Report, Score
from lozo_bench.optimizers.fireworks import Fireworks
from lozo_bench.optimizers.layer_turns import LayerTurns, Look, needs_of_turns
from lozo_bench.optimizers.lora_modules import check_modules, lora_modules
from lozo_bench.optimizers.projections import Distribution
from lozo_bench.optimizers.search_options import check_search_options, statistics_of
from lozo_bench.randomness.draws import Draws


class FLora:
    """Fireworks over low-rank modules.

    Args:
        engine: holds the weights X, which stay as they are, and the modules beside them.
        draws: source of the projections and of the sparks.
        rank: r of the modules.
        intrinsic_dim: d, the numbers that are searched in each layer, a multiple of 4.
        popsize: lambda, the candidates of a step, guiding sparks included.
        budget: B, the number of calls.
        sigma: at the start, sparks are about as far from their firework as draws from
            N(0, sigma^2 I) are from 0.
        alpha: normal projections are multiplied by it.
        bounds: each number of z stays between -bounds and bounds; None: no bounds.
        variant: ``bbfwa``: one firework; ``lotfwa``: several, with guiding sparks, and the losers
            start anew.
        fireworks: how many; None: 1 for bbfwa, 2 for lotfwa.
        reevaluate: a firework is scored again in each step, because the other layers have changed.
        projection: ``hidden_states``: normal, scaled by what enters the layer; ``random``: uniform,
            torch's default.
        b_init: how B is projected beside ``hidden_states`` in all layers but the first:
            ``normal``, like A, or ``uniform``.
        incumbent: which point the layer keeps: the best of its last step (``generation_best``), or
            the ``best_ever``, although its loss is of a time when other layers were different.
        dev: what dev is evaluated with. ``incumbent``: that of each layer. ``candidate``: the same,
            but with the last candidate in the layer that was just searched.
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
        variant: Literal["bbfwa", "lotfwa"] = "bbfwa",
        fireworks: int | None = None,
        reevaluate: bool = True,
        projection: Literal["hidden_states", "random"] = "hidden_states",
        b_init: Distribution = "normal",
        incumbent: Literal["best_ever", "generation_best"] = "generation_best",
        dev: Look = "incumbent",
    ) -> None:
        check_search_options(intrinsic_dim, budget, popsize, sigma, alpha)
        check_modules(rank, intrinsic_dim)
        modules = lora_modules(
            engine.X, draws, intrinsic_dim, rank, alpha, sigma, projection, b_init
        )
        needs = needs_of_turns(budget, popsize, len(modules), dev)
        # Whether a firework of LoTFWA starts anew depends on the turns that are left.
        self.needs = replace(needs, any_length=variant == "bbfwa")
        rounds = budget // (popsize * max(1, len(modules)))
        search = partial(
            Fireworks,
            draws,
            dimension=intrinsic_dim,
            sigma=sigma,
            popsize=popsize,
            bounds=bounds,
            variant=variant,
            fireworks=fireworks,
            turns=max(1, rounds),
            reevaluate=reevaluate,
        )
        self.turns = LayerTurns(
            engine,
            modules,
            search,
            incumbent=incumbent,
            statistics=statistics_of(projection == "hidden_states", faithful=False),
            look=dev,
        )
        self.lr, self.t = 0.0, 0

    def step(self, score: Score) -> Report:
        """Make one step: the sparks of one layer."""
        t, self.t = self.t, self.t + 1
        return self.turns.make(t, score)
