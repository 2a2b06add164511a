"""Head tuning: what makes logits of hidden states moves, and nothing before it.

Source: Malladi et al., arXiv 2305.17333, E.4; spec lozo_mezo 2.2. For a causal model that is the
output matrix; for a masked one everything named lm_head: a dense layer, a normalisation, the output
matrix and its bias; for a classifier its classes' layers.
"""

from __future__ import annotations

from dataclasses import replace

from lozo_bench.config import Kind
from lozo_bench.engine.answers import backbone
from lozo_bench.engine.draws import Draws
from lozo_bench.errors import UserError
from lozo_bench.models.check import output_layer
from lozo_bench.models.load import Loaded
from lozo_bench.tuning.base import Tuned, moving


class Head:
    """The output layer moves."""

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        ids = head_parameters(loaded, "tuning=head")
        return Tuned(moving(loaded.model, lambda _, x: id(x) in ids), loaded.model, whole=False)


def with_new_head(tuned: Tuned, loaded: Loaded) -> Tuned:
    """The same, and a classifier's head moves too, as it is new and random (HeteroLoRA's setting).

    A model of another kind has no such head and is left as it is.
    """
    if loaded.kind is not Kind.classifier:
        return tuned
    moved = {id(x) for x in tuned.X.values()} | head_parameters(loaded, "model.kind=classifier")
    return replace(tuned, X=moving(loaded.model, lambda _, x: id(x) in moved))


def head_parameters(loaded: Loaded, who: str) -> set[int]:
    """``id`` of each parameter that is not part of the backbone.

    Raises:
        UserError: ``who`` would move the input embeddings too, which the output matrix is tied to.
    """
    inside = {id(x) for x in backbone(loaded.model).parameters()}
    head = output_layer(loaded.model)
    if head is not None and id(head.weight) in inside:
        raise UserError(
            f"{who}: the output matrix of {loaded.name} is that of its input embeddings, which "
            "would move too; model.untie_head=true gives it one of its own"
        )
    return {id(x) for x in loaded.model.parameters()} - inside
