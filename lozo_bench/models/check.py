"""Check that a model and its checkpoint have the same weights, and that they are numbers.

transformers only warns about weights that it initialised itself, or that it left out. With RoBERTa,
an ``lm_head.decoder`` that is missing from the checkpoint and therefore random gives chance
accuracy and no error. That is the probable cause of zero-shot results far below the paper's that
users of MeZO's code reported (princeton-nlp/MeZO issues 35 and 43).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from lozo_bench.errors import UserError
from lozo_bench.models.unused import unused_weights

_MAX_LISTED = 4


def check_loaded(model: PreTrainedModel, info: Mapping[str, Collection[Any]]) -> None:
    """Check that every weight of ``model`` was read from the checkpoint.

    Other heads and a pooler may be in the checkpoint alone, other weights not.

    Args:
        model: the loaded model.
        info: what ``from_pretrained(..., output_loading_info=True)`` returned beside it.

    Raises:
        UserError: a weight is missing, has another shape, was not loaded onto a device, is not
            tied although config.json says so, or belongs inside the model but has no place there.
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if missing:
        instead = f" (it has {listed(unexpected)} instead)" if unexpected else ""
        raise UserError(
            f"model.path: {listed(missing)} were not in the checkpoint and would be random; "
            f"allowed: a checkpoint saved from a {type(model).__name__}{instead}; what to do: "
            "download it again, or check model.kind and tie_word_embeddings in its config.json"
        )
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        shapes = [f"{key} {tuple(saved)} for {tuple(made)}" for key, saved, made in mismatched]
        raise UserError(
            f"model.path: {listed(shapes)} have another shape in the checkpoint than in "
            "config.json and would be random; what to do: download both files again"
        )
    if info["error_msgs"]:
        raise UserError(f"model.path: the checkpoint did not load: {listed(info['error_msgs'])}")
    _check_used(model, unexpected)
    _check_in_memory(model)
    _check_tied(model)


def check_finite(weights: Iterable[tuple[str, torch.Tensor]], where: str) -> None:
    """Check that all numbers in ``weights`` are finite; ``where`` is the key they came from.

    One sum for each weight is cheap. It can also overflow, so it only says where to look closer.
    """
    for name, weight in weights:
        if weight.is_meta or weight.sum().isfinite() or weight.isfinite().all():
            continue
        found = "NaN" if weight.isnan().any() else "infinite numbers"
        raise UserError(
            f"{where}: {name} contains {found}; what to do: download it again, or take a "
            "checkpoint from before its training diverged"
        )


def word_embeddings(model: PreTrainedModel) -> torch.Tensor:
    """Return the input embeddings, [rows, width]; rows may exceed the tokenizer's vocabulary."""
    return cast(nn.Embedding, model.get_input_embeddings()).weight


def output_layer(model: PreTrainedModel) -> nn.Linear | None:
    """Return the layer that computes logits, weight [rows, width], or None if there is none.

    Some models have an output matrix but no such layer: DeBERTa-v2's own head multiplies by the
    word embeddings, and names the layer before that as its output embeddings.
    """
    layer: nn.Linear | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    words = (len(word_embeddings(model)), getattr(model.config, "vocab_size", None))
    return layer if layer is not None and len(layer.weight) in words else None


def max_row_tokens(model: PreTrainedModel) -> int | None:
    """Return how many tokens a row can have at most, or None if there is no limit.

    A position embedding with a padding index, such as RoBERTa's, numbers positions from the index
    after it on, so a row can have that many tokens fewer than the embedding has rows.
    """
    config = model.config
    longest: int | None = getattr(config, "max_position_embeddings", None)
    longest = longest or getattr(config, "max_seq_len", None)  # MPT's name
    if longest is None or longest < 1:  # XLNet says -1
        return None
    words = word_embeddings(model)
    return longest - max((_first_position(x, words, longest) for x in model.modules()), default=0)


def _first_position(module: nn.Module, words: torch.Tensor, rows: int) -> int:
    """Return the number of the first position if this is a position embedding with so many rows."""
    padding: int | None = getattr(module, "padding_idx", None)
    weight = getattr(module, "weight", None)
    if padding is None or weight is words or not isinstance(weight, torch.Tensor):
        return 0
    return padding + 1 if len(weight) == rows else 0


def _check_used(model: PreTrainedModel, unexpected: Iterable[str]) -> None:
    unused = unused_weights(model, unexpected)
    if unused:
        raise UserError(
            f"model.path: {listed(unused)} are in the checkpoint, but the model that config.json "
            "describes has no place for them and would run without them; what to do: download "
            "both files again, or correct config.json (its number of layers, for example)"
        )


def _check_in_memory(model: PreTrainedModel) -> None:
    on_meta = sorted(name for name, weight in model.named_parameters() if weight.is_meta)
    if on_meta:
        raise UserError(
            f"model.device_map: {listed(on_meta)} did not fit and were left outside the devices, "
            "where they cannot be trained; what to do: use more devices or a smaller model.dtype"
        )


def _check_tied(model: PreTrainedModel) -> None:
    head = output_layer(model)
    if not model.config.tie_word_embeddings or head is None:
        return
    # Tied means that both names share one storage. The optimizers perturb such a matrix once; two
    # equal copies would be perturbed separately and would drift apart.
    if head.weight.data_ptr() != word_embeddings(model).data_ptr():
        raise UserError(
            "model.path: config.json sets tie_word_embeddings, but the checkpoint holds a separate "
            "output matrix that differs from the word embeddings; what to do: set "
            "tie_word_embeddings to false in config.json if the model was trained that way"
        )


def listed(names: Collection[str]) -> str:
    """Return the first few names, and how many more there are."""
    shown = ", ".join(list(names)[:_MAX_LISTED])
    return shown if len(names) <= _MAX_LISTED else f"{shown} and {len(names) - _MAX_LISTED} more"
