"""Compute the losses of nearby versions of a model's weights. See README.md in this folder."""

from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import Coordinates, Subspace, along, combination
from lozo_bench.randomness.draws import Draws

__all__ = [
    "Coordinates",
    "Draws",
    "Folder",
    "Fused",
    "InPlace",
    "MicroBatch",
    "Score",
    "Subspace",
    "along",
    "combination",
]
