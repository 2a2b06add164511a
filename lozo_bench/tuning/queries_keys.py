"""Train changes of the queries and keys: low-rank modules beside their weights, which stay.

The weights of queries and keys are the X of the run, so that an optimizer can put modules beside
them (`optimizers/c_lora.py`). Nothing is written to them: only the modules are searched and saved.
"""

from __future__ import annotations

import re

from lozo_bench.errors import UserError
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, check_pattern, freeze_rest


class QueriesKeys:
    """Put modules beside the weights of queries and keys.

    Args:
        targets: a regular expression; the matrices whose names match are X. In GPT-2 one matrix
            computes queries, keys and values.
    """

    def __init__(self, *, targets: str) -> None:
        check_pattern("targets", targets)
        self.targets = targets

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        X = freeze_rest(
            loaded.model,
            lambda name, x: x.ndim == 2 and re.search(self.targets, name) is not None,
        )
        if not X:
            names = [name for name, x in loaded.model.named_parameters() if x.ndim == 2]
            of_attention = [name for name in names if re.search("att|query|qkv", name)]
            raise UserError(
                f"tuning.targets: '{self.targets}' is in no matrix's name; {loaded.name} has, for "
                f"example, {(of_attention or names)[0]}; what to do: give a part of the names of "
                "its queries and keys, or choose another tuning and optimizer if it keeps them in "
                "another form"
            )
        return Tuned(X, loaded.model, all_weights=False, beside=True)
