"""Check that every weight of a loaded model came from its checkpoint.

transformers only warns about weights that it initialised itself. With RoBERTa, an
``lm_head.decoder`` that is missing from the checkpoint and therefore random gives chance accuracy
and no error. That is the probable cause of zero-shot results far below the paper's that users of
MeZO's code reported (princeton-nlp/MeZO issues 35 and 43).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from lozo_bench.errors import UserError
from lozo_bench.models.head import head_weights

_MAX_LISTED = 4


def check_loaded(model: PreTrainedModel, info: Mapping[str, Collection[Any]]) -> None:
    """Check that every weight of ``model`` was read from the checkpoint.

    Weights that only the checkpoint has (other heads, a pooler) are allowed.

    Args:
        model: the loaded model.
        info: what ``from_pretrained(..., output_loading_info=True)`` returned beside it.

    Raises:
        UserError: a weight is missing, has another shape, was not loaded onto a device, or is not
            tied although config.json says so.
    """
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"model.path: {_listed(missing)} were not in the checkpoint and would be random; "
            f"allowed: a checkpoint saved from a {type(model).__name__}; what to do: download it "
            "again, or check model.kind and tie_word_embeddings in its config.json"
        )
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        shapes = [f"{key} {tuple(saved)} for {tuple(made)}" for key, saved, made in mismatched]
        raise UserError(
            f"model.path: {_listed(shapes)} have another shape in the checkpoint than in "
            "config.json and would be random; what to do: download both files again"
        )
    if info["error_msgs"]:
        raise UserError(f"model.path: the checkpoint did not load: {_listed(info['error_msgs'])}")
    _check_in_memory(model)
    _check_tied(model)


def word_embeddings(model: PreTrainedModel) -> torch.Tensor:
    """Return the input embeddings, [rows, width]; rows may exceed the tokenizer's vocabulary."""
    return cast(nn.Embedding, model.get_input_embeddings()).weight


def output_layer(model: PreTrainedModel) -> nn.Linear | None:
    """Return the layer that computes logits, weight [rows, width], or None if there is none."""
    layer: nn.Linear | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return layer


def max_row_tokens(model: PreTrainedModel) -> int | None:
    """Return how many tokens a row can have at most, or None if there is no limit.

    RoBERTa-like models number positions from ``pad_token_id + 1`` on, so that they accept that many
    tokens fewer than ``max_position_embeddings`` says.
    """
    config = model.config
    longest: int | None = getattr(config, "max_position_embeddings", None)
    if longest is not None and "roberta" in config.model_type:
        longest -= config.pad_token_id + 1
    return longest


def _check_in_memory(model: PreTrainedModel) -> None:
    on_meta = sorted(name for name, weight in model.named_parameters() if weight.is_meta)
    if on_meta:
        raise UserError(
            f"model.device_map: {_listed(on_meta)} did not fit and were left outside the devices, "
            "where they cannot be trained; what to do: use more devices or a smaller model.dtype"
        )


def _check_tied(model: PreTrainedModel) -> None:
    if not model.config.tie_word_embeddings or head_weights(model):
        return  # a classifier has no output matrix over the vocabulary
    head = output_layer(model)
    # Tied means that both names share one storage. The optimizers perturb such a matrix once; two
    # equal copies would be perturbed separately and would drift apart.
    if head is None or head.weight.data_ptr() != word_embeddings(model).data_ptr():
        raise UserError(
            "model.path: config.json sets tie_word_embeddings, but the checkpoint holds a separate "
            "output matrix that differs from the word embeddings; what to do: set "
            "tie_word_embeddings to false in config.json if the model was trained that way"
        )


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_MAX_LISTED])
    return shown if len(names) <= _MAX_LISTED else f"{shown} and {len(names) - _MAX_LISTED} more"
