"""Full tuning: every weight is trained."""

from __future__ import annotations

from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned


class Full:
    """Train all parameters, including embeddings, normalisation and biases."""

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        X = {name: x for name, x in loaded.model.named_parameters() if x.requires_grad}
        return Tuned(X, loaded.model, all_weights=True)
