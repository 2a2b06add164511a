"""Score classes by the logits of a classifier head that reads the whole row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lozo_bench.data.batch import Batch
from lozo_bench.engine.tensors import wide
from lozo_bench.models.capabilities import without_cache
from lozo_bench.objectives.options import Scorer


def classifier_scorer(model: Any, forward: Callable[..., Any] | None = None) -> Scorer:
    """Return a function that scores each class by the head's logit for it.

    The scores are [B, K], float32 or wider. Each example must be one row, and the layout's
    ``label_ids`` must be the numbers of the classes.

    Args:
        model: a transformers model with a classifier head.
        forward: called instead of the model if something wraps it, such as torch's DDP.
    """
    call = model if forward is None else forward
    no_cache = without_cache(model)

    def score(batch: Batch) -> Tensor:
        logits: Tensor = call(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, **no_cache
        ).logits
        return logits.to(wide(logits.dtype))

    return score
