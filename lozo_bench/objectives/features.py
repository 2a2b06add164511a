"""What the output layer sees where answers are read: the features of a linear probe."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lozo_bench.batches import Batch
from lozo_bench.engine.answers import only_positions
from lozo_bench.engine.tensors import wide
from lozo_bench.objectives.options import without_cache


@torch.no_grad()
def answer_features(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """The output layer's inputs [N, d] before each token of the right options, and those tokens.

    Float32 or wider, on the CPU. For a masked model the token is the label's word at the mask.
    """
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    hook = model.get_output_embeddings().register_forward_pre_hook(look)
    try:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        with only_positions(model, batch.read.flatten()):
            model(**inputs, **without_cache(model))
    finally:
        hook.remove()
    features = seen[0].flatten(0, 1).view(*batch.read.shape, -1)
    rows, entries = torch.nonzero(batch.option == batch.labels[:, None], as_tuple=True)
    found = features[rows, batch.at[rows, entries]]
    return found.to("cpu", wide(found.dtype)), batch.token[rows, entries].cpu()
