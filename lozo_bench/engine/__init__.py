"""Compute the losses of nearby versions of a model's weights. See README.md in this folder."""

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Part, Score
from lozo_bench.engine.subspace import Places, Subspace, along, among

__all__ = [
    "Draws",
    "Folder",
    "Fused",
    "InPlace",
    "Part",
    "Places",
    "Score",
    "Subspace",
    "along",
    "among",
]
