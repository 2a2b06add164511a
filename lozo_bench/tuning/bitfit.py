"""BitFit: the biases move and nothing else.

Source: Ben Zaken et al., arXiv 2106.10199.
"""

from __future__ import annotations

from lozo_bench.engine.draws import Draws
from lozo_bench.errors import UserError
from lozo_bench.models.load import Loaded
from lozo_bench.tuning.base import Tuned, moving


class BitFit:
    """Every bias moves, those of the normalisation and of the output layer too."""

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        model = loaded.model
        X = moving(model, lambda name, _: name.rpartition(".")[2] == "bias")
        if not X:
            raise UserError(
                f"tuning=bitfit: a {type(model).__name__} has no biases; choose another tuning"
            )
        return Tuned(X, model, whole=False)
