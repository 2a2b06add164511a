"""Head tuning: only the layers that turn hidden states into logits are trained.

Source: MeZO (Malladi et al., arXiv 2305.17333), appendix E.4. In a causal model these layers are
    the
output matrix. In a masked model they are everything named lm_head: a dense layer, a normalisation,
the output matrix and its bias. In a classifier they are the classifier head.
"""

from __future__ import annotations

from dataclasses import replace

from lozo_bench.config.schema import Kind
from lozo_bench.errors import UserError
from lozo_bench.models.answers import backbone
from lozo_bench.models.check import output_layer
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, freeze_rest


class Head:
    """Train the output layer."""

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        ids = head_parameters(loaded, "tuning=head")
        X = freeze_rest(loaded.model, lambda _, x: id(x) in ids)
        return Tuned(X, loaded.model, all_weights=False)


def with_trainable_head(tuned: Tuned, loaded: Loaded) -> Tuned:
    """Return ``tuned`` with a classifier's head made trainable as well.

    The head is new and random, so it is always trained, as in HeteroLoRA's experiments, and so is a
    new pooler before it. A model of another kind has no such head; its ``tuned`` is returned
    unchanged.
    """
    if loaded.kind is not Kind.classifier:
        return tuned
    trained = {id(x) for x in (*tuned.X.values(), *loaded.new_head)}
    trained |= head_parameters(loaded, "model.kind=classifier")
    return replace(tuned, X=freeze_rest(loaded.model, lambda _, x: id(x) in trained))


def head_parameters(loaded: Loaded, option: str) -> set[int]:
    """Return the ``id`` of each parameter that does not belong to the backbone.

    Args:
        loaded: the model.
        option: the config option that trains the head, for the error message.

    Raises:
        UserError: the output matrix is tied to the input embeddings, so training the head would
            train the embeddings too.
    """
    inside = {id(x) for x in backbone(loaded.model).parameters()}
    head = output_layer(loaded.model)
    if head is not None and id(head.weight) in inside:
        raise UserError(
            f"{option}: the output matrix of {loaded.name} is tied to its input embeddings, which "
            "would be trained too; what to do: model.untie_head=true gives the head its own matrix"
        )
    return {id(x) for x in loaded.model.parameters()} - inside
