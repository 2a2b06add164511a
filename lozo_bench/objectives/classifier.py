"""Scores of classes by a classifier head on the whole row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lozo_bench.batches import Batch
from lozo_bench.engine.tensors import wide
from lozo_bench.objectives.options import Scorer, without_cache


def classifier_scorer(model: Any, forward: Callable[..., Any] | None = None) -> Scorer:
    """Score each class by the head's logit for it: [B, K] in float32 or wider.

    The examples are one row each, and ``batch.token`` numbers the classes. ``forward`` is called in
    the model's place where something stands around it, as torch's DDP.
    """
    call = model if forward is None else forward
    no_cache = without_cache(model)

    def score(batch: Batch) -> Tensor:
        logits: Tensor = call(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, **no_cache
        ).logits
        return logits.to(wide(logits.dtype))

    return score
