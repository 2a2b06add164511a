"""BitFit: only the biases are trained.

Source: Ben Zaken et al., arXiv 2106.10199.
"""

from __future__ import annotations

from lozo_bench.errors import UserError
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, freeze_rest


class BitFit:
    """Train every bias, including those of the normalisation and of the output layer."""

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        model = loaded.model
        X = freeze_rest(model, lambda name, _: name.rpartition(".")[2] == "bias")
        if not X:
            raise UserError(
                f"tuning=bitfit: a {type(model).__name__} has no biases; what to do: choose "
                "another tuning"
            )
        return Tuned(X, model, all_weights=False)
