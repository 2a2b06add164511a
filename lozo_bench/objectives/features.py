"""Compute the features of a linear probe: the output layer's inputs where answers are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lozo_bench.data.batch import Batch
from lozo_bench.engine.tensors import wide
from lozo_bench.models.answers import only_positions
from lozo_bench.models.capabilities import without_cache


@torch.no_grad()
def answer_features(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the output layer's inputs at the positions that predict the right options' tokens.

    Args:
        model: a language model.
        batch: N is the number of tokens in the right options of all its examples. For a masked
            model, the right option is the label word at the mask.

    Returns:
        Features [N, d], float32 or wider, and the N token ids; both on the CPU.
    """
    head_inputs: list[Tensor] = []

    def keep_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        head_inputs.append(inputs[0])

    hook = model.get_output_embeddings().register_forward_pre_hook(keep_input)
    try:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        with only_positions(model, batch.read.flatten()):
            model(**inputs, **without_cache(model))
    finally:
        hook.remove()
    features = head_inputs[0].flatten(0, 1).view(*batch.read.shape, -1)
    rows, entries = torch.nonzero(batch.option == batch.labels[:, None], as_tuple=True)
    found = features[rows, batch.at[rows, entries]]
    return found.to("cpu", wide(found.dtype)), batch.token[rows, entries].cpu()
