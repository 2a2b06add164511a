"""Proof that every weight of a loaded model came from its checkpoint.

transformers only warns about weights it had to make up. RoBERTa runs were lost to that: a randomly
initialised ``lm_head.decoder`` gives chance accuracy and no error (spec lozo_mezo 6.3, T8).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from lozo_bench.errors import UserError
from lozo_bench.models.head import head_weights

_SHOWN = 4


def check_loaded(model: PreTrainedModel, info: Mapping[str, Collection[Any]]) -> None:
    """Raise UserError unless every weight of ``model`` is the checkpoint's own.

    ``info`` is what ``from_pretrained(..., output_loading_info=True)`` returns. Weights that the
    checkpoint has and the model does not (other heads, a pooler) are fine.
    """
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"model.path: {_listed(missing)} were not in the checkpoint and would be random; "
            f"allowed: a checkpoint saved from a {type(model).__name__}; what to do: fetch it "
            "again, or check model.kind and tie_word_embeddings in its config.json"
        )
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        shapes = [f"{key} {tuple(saved)} for {tuple(made)}" for key, saved, made in mismatched]
        raise UserError(
            f"model.path: {_listed(shapes)} have another shape in the checkpoint than config.json "
            "says and would be random; what to do: fetch both files again"
        )
    if info["error_msgs"]:
        raise UserError(f"model.path: the checkpoint did not load: {_listed(info['error_msgs'])}")
    _check_in_memory(model)
    _check_tied(model)


def word_embeddings(model: PreTrainedModel) -> torch.Tensor:
    """The input embeddings, shape (rows, width); rows may exceed the tokenizer's vocabulary."""
    return cast(nn.Embedding, model.get_input_embeddings()).weight


def output_layer(model: PreTrainedModel) -> nn.Linear | None:
    """The layer that makes logits, its weight shaped (rows, width); None for a model without."""
    layer: nn.Linear | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return layer


def longest_row(model: PreTrainedModel) -> int | None:
    """How many tokens a row can have; None where there is no limit.

    RoBERTa and its kin count positions from behind the padding token's id.
    """
    config = model.config
    longest: int | None = getattr(config, "max_position_embeddings", None)
    if longest is not None and "roberta" in config.model_type:
        longest -= config.pad_token_id + 1
    return longest


def _check_in_memory(model: PreTrainedModel) -> None:
    away = sorted(name for name, weight in model.named_parameters() if weight.is_meta)
    if away:
        raise UserError(
            f"model.device_map: {_listed(away)} did not fit and were left outside the devices, "
            "where they cannot be trained; what to do: more devices, or a smaller model.dtype"
        )


def _check_tied(model: PreTrainedModel) -> None:
    if not model.config.tie_word_embeddings or head_weights(model):
        return  # a classifier makes no words
    head = output_layer(model)
    # Two names of one storage: the optimizers perturb a tied matrix once (spec lozo_mezo T7).
    if head is None or head.weight.data_ptr() != word_embeddings(model).data_ptr():
        raise UserError(
            "model.path: config.json says tie_word_embeddings, but the checkpoint holds an output "
            "matrix of its own that differs from the word embeddings; what to do: set "
            "tie_word_embeddings to false in config.json if the model was trained so"
        )


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
