"""Skip the logits that the loss does not read: those of other positions and of other words.

Both context managers work on a Hugging Face model from outside, without changing its code.
`only_positions` reduces the backbone's output to the hidden states of the positions that the loss
reads, so the head processes nothing else. `only_columns` reduces the output embedding to the rows
of the words that the loss compares. Both also work while the `fused` engine has replaced the
weights by `versions.Versions` tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lozo_bench.engine.device_errors import raise_if_of_the_device
from lozo_bench.errors import UserError


@contextmanager
def only_positions(model: Any, read: Tensor) -> Iterator[None]:
    """Inside this context, the model returns logits [N, 1, vocab] of the positions ``read`` only.

    Args:
        model: a causal or masked language model.
        read: indices into the flattened [row, position] grid of the batch, that is
            row * row length + position in the row; int64, [N].

    Raises:
        UserError: the model has no recognizable backbone, or one forward pass did not call the
            backbone exactly once.
    """
    calls = 0

    def cut(module: nn.Module, args: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        hidden = output[0]
        picked = hidden.reshape(-1, hidden.shape[-1])[read].unsqueeze(1)
        if isinstance(output, tuple):
            return (picked, *output[1:])
        output.last_hidden_state = picked
        return output

    hook = backbone(model).register_forward_hook(cut)
    try:
        yield
    finally:
        hook.remove()
    if calls != 1:
        raise UserError(
            f"engine.answer_positions: {type(model).__name__} called its backbone {calls} times in "
            "one forward pass, but exactly one call is supported; set "
            "engine.answer_positions=false for this model"
        )


@contextmanager
def only_columns(model: Any, words: Tensor) -> Iterator[None]:
    """Inside this context, the model returns logits [..., C] of these C words only.

    Args:
        model: a language model with a linear output embedding.
        words: token ids; int64, [C].

    Raises:
        UserError: the model has no linear output embedding, or it failed with the reduced one.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise UserError(
            f"engine.answer_columns: {type(model).__name__} has no linear output embedding; "
            "set engine.answer_columns=false for this model"
        )
    parameters = head._parameters
    kept = {key: weight for key, weight in parameters.items() if weight is not None}
    try:
        for key, weight in kept.items():
            parameters[key] = weight[words]  # type: ignore[assignment]
        yield
    except RuntimeError as error:
        raise_if_of_the_device(error)
        raise UserError(
            f"engine.answer_columns: {type(model).__name__} failed with {len(words)} words in its "
            f"output embedding ({error}); engine.answer_columns=false may work for this model"
        ) from error
    finally:
        parameters.update(kept)


def backbone(model: Any) -> nn.Module:
    """Return the submodule of a language model whose hidden states the head reads.

    Raises:
        UserError: the model has no such submodule.
    """
    # Some models return their output embedding from get_decoder(); it is not the backbone.
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for part in (getattr(model, "get_decoder", lambda: None)(), getattr(model, "base_model", None)):
        if isinstance(part, nn.Module) and part is not model and part is not head:
            return part
    raise UserError(
        f"engine.answer_positions: {type(model).__name__} has no separate backbone and head; "
        "set engine.answer_positions=false for this model"
    )
