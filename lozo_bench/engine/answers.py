"""Not computing what nobody asked for: logits elsewhere than at the answers, and of other words.

Both work on any Hugging Face model from outside. The hidden states that leave its backbone are cut
down to the positions that are read, so that the whole head sees nothing else; and while it runs,
the output embedding has only the rows of the words that are compared. Weights in versions
(`versions.py`) stay in versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lozo_bench.errors import UserError


@contextmanager
def only_positions(model: Any, read: Tensor) -> Iterator[None]:
    """While this is open, the model's logits are those of the positions in ``read``: [N, 1, vocab].

    Args:
        model: a causal or masked language model.
        read: positions counted through the rows of the batch, row * length + place; int64, [N].

    Raises:
        UserError: no part of the model could be found whose output goes to the head.
    """
    fired = 0

    def cut(module: nn.Module, args: Any, output: Any) -> Any:
        nonlocal fired
        fired += 1
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
    if fired != 1:
        raise UserError(
            f"engine.answer_positions: {type(model).__name__} called its backbone {fired} times in "
            "one forward, where once was expected; engine.answer_positions=false works for it"
        )


@contextmanager
def only_columns(model: Any, words: Tensor) -> Iterator[None]:
    """While this is open, logits are those of these words only: [..., len(words)].

    Args:
        model: a language model with a linear output embedding.
        words: token ids; int64, [C].

    Raises:
        UserError: the model has no such embedding.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise UserError(
            f"engine.answer_columns: {type(model).__name__} has no linear output embedding; "
            "engine.answer_columns=false works for it"
        )
    parameters = head._parameters
    kept = {key: weight for key, weight in parameters.items() if weight is not None}
    try:
        for key, weight in kept.items():
            parameters[key] = weight[words]  # type: ignore[assignment]
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UserError(
            f"engine.answer_columns: {type(model).__name__} failed with {len(words)} words in its "
            f"output embedding ({error}); engine.answer_columns=false may work for it"
        ) from error
    finally:
        parameters.update(kept)


def backbone(model: Any) -> nn.Module:
    """The part of a language model whose hidden states its head reads.

    Raises:
        UserError: the model is not built that way.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()  # which some call a decoder
    for part in (getattr(model, "get_decoder", lambda: None)(), getattr(model, "base_model", None)):
        if isinstance(part, nn.Module) and part is not model and part is not head:
            return part
    raise UserError(
        f"engine.answer_positions: {type(model).__name__} has no backbone and head; "
        "engine.answer_positions=false works for it"
    )
