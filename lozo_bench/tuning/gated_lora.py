"""LoRA whose modules can be turned on and off one by one, so that an allocation can choose them.

Source: Zhang et al., "Unlocking the Global Synergies in Low-Rank Adapters", arXiv 2406.14956
(HeteroLoRA). Without an allocation all modules are on, and this is LoRA.
"""

from __future__ import annotations

from dataclasses import replace

from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned
from lozo_bench.tuning.gates import Gates
from lozo_bench.tuning.lora import Lora
from lozo_bench.tuning.low_rank_modules import low_rank_modules


class GatedLora(Lora):
    """Train low-rank matrices beside frozen ones, as `Lora`, with a gate for each of them."""

    gated = True

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        tuned = super().tune(loaded, draws)
        gates = Gates(low_rank_modules(loaded.model))
        return replace(tuned, extras=gates.extras, gates=gates)
