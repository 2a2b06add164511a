"""The weights of a model and an adapter, both trained; the adapter has several sets of values.

Bilevel methods train the weights theta by a zeroth-order estimate and the adapter by gradients.
The sets of values start from draws of their own. They are not in X, whose weights are theta, but
among the extras (see `lozo_bench.engine.value_sets`). Only the adapter is differentiated, so that
no gradient of the size of theta exists.

Source: Shirkavand et al., "Bilevel ZOFO", arXiv 2502.03604.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from lozo_bench.config.build import build
from lozo_bench.config.schema import Kind
from lozo_bench.engine.value_sets import with_value_sets
from lozo_bench.errors import UserError
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, Tuning
from lozo_bench.tuning.ia3 import Ia3
from lozo_bench.tuning.lora import Lora


class TwoLevel:
    """Train all weights of a model, and an adapter with several sets of values.

    Args:
        adapter: the tuning of the adapter: ``_target_`` and its options.
        tasks: the names of a run's several tasks: the sets are those of an adapter that is not
            trained, and p and s of each task. None: they are p and s.

    Raises:
        UserError: of several tasks, an adapter would change the model that is not trained.
    """

    def __init__(self, *, adapter: dict[str, Any], tasks: list[str] | None = None) -> None:
        self.adapter: Tuning = build(adapter, "tuning.adapter")
        self.sets = 1 + 2 * len(tasks) if tasks else 2
        if tasks and not isinstance(self.adapter, Lora | Ia3):
            raise UserError(
                f"tuning.adapter: {type(self.adapter).__name__} is given; allowed with several "
                "tasks: lora or ia3, which change nothing before they are trained, so that theta "
                "can be tested by itself"
            )

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`.

        Raises:
            UserError: the adapter cannot be used with the model or beside trained weights.
        """
        if loaded.kind is Kind.classifier:
            raise UserError(
                "tuning: TwoLevel is given; allowed with model.kind=classifier: another tuning, "
                "because a new head is neither pre-trained nor an adapter"
            )
        weights = dict(loaded.model.named_parameters())
        tuned = self.adapter.tune(loaded, draws)
        if tuned.gates or tuned.beside or tuned.start or tuned.extras.tensors:
            raise UserError(
                f"tuning.adapter: {type(self.adapter).__name__} is given; allowed: lora, rslora, "
                "dora, prefix, prompt or ia3"
            )
        adapter = {id(x) for x in tuned.X.values()}
        if adapter & {id(x) for x in weights.values()}:
            raise UserError(
                f"tuning.adapter: {type(self.adapter).__name__} trains weights of the model, which "
                "are trained here anyway; allowed: a tuning that adds parameters, such as lora"
            )
        theta = {name: x for name, x in tuned.model.named_parameters() if id(x) not in adapter}
        extras = with_value_sets(tuned.X, _initial(tuned, self.sets))
        return replace(tuned, X=theta, all_weights=True, extras=extras)


def _initial(tuned: Tuned, count: int) -> list[dict[str, Tensor]]:
    """Return the initial values of each set, and leave those of the first one in X.

    Those of a tuning without randomness are all the same.
    """
    redraw = tuned.redraw or (lambda number: None)
    sets: list[dict[str, Tensor]] = []
    for number in reversed(range(count)):
        redraw(number)
        sets.insert(0, {name: x.detach().clone() for name, x in tuned.X.items()})
    return sets
