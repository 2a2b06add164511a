"""Loading a model through transformers 5, with nothing left to chance.

Kept as loaded: ``requires_grad``, dropout rates (off in eval mode) and the attention
implementation, which is transformers' own choice.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from lozo_bench.config import Dtype, Kind, ModelConfig
from lozo_bench.errors import UserError, bad_value
from lozo_bench.models.autocast import autocast
from lozo_bench.models.check import check_loaded, output_layer, word_embeddings
from lozo_bench.models.checkpointing import checkpoint_layers
from lozo_bench.models.devices import check_device_map, pick_device
from lozo_bench.models.head import draw_head
from lozo_bench.models.locate import kind_of, locate, model_kind, unknown_kind
from lozo_bench.models.reading import reading
from lozo_bench.models.tokenizer import load_tokenizer

DTYPES = {Dtype.fp32: torch.float32, Dtype.bf16: torch.bfloat16, Dtype.fp16: torch.float16}
_CLASSES = {
    Kind.causal: AutoModelForCausalLM,
    Kind.masked: AutoModelForMaskedLM,
    Kind.classifier: AutoModelForSequenceClassification,
}


@dataclass(frozen=True)
class Loaded:
    """A model ready to score, in eval mode. ``device`` is where its inputs go."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    device: torch.device
    name: str


def load(config: ModelConfig, classes: int | None = None, seed: int = 0) -> Loaded:
    """Load and check the model and tokenizer that ``config`` names.

    A classifier has ``classes`` scores; a head that the checkpoint does not have is drawn under
    ``seed`` (see `head.py`), and is the only weight that may be.

    Raises UserError when the files cannot be had or are damaged, when any weight would be left
    random, when the architecture does not fit ``model.kind``, when the tokenizer does not do what
    ``model.bos_token`` says, and when the device is not there.
    """
    device = pick_device(config.device)
    check_device_map(config)
    path = locate(config.path)
    with reading(path):
        hf_config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    kind = _fitting_kind(config, hf_config)
    tokenizer = load_tokenizer(path, config.bos_token)
    if kind is Kind.masked and tokenizer.mask_token is None:
        raise UserError(f"model.path: the tokenizer of {path} has no mask token; say another model")
    model = _load_weights(path, config, kind, classes, seed)
    if kind is Kind.classifier:  # where transformers looks for the last token that is not padding
        model.config.pad_token_id = tokenizer.pad_token_id
    _check_vocabulary(model, tokenizer)
    if config.untie_head:
        _untie_head(model)
    if config.device_map is None:
        model.to(device)  # type: ignore[arg-type]  # transformers wraps torch's `to` untyped
    else:
        device = word_embeddings(model).device
    model.train(mode=False)
    if config.gradient_checkpointing:
        checkpoint_layers(model)
    if config.autocast is not None:
        autocast(model, device.type, DTYPES[Dtype(config.autocast)])
    return Loaded(model, tokenizer, kind, device, config.name)


def _fitting_kind(config: ModelConfig, hf_config: PreTrainedConfig) -> Kind:
    """The kind asked for, refused where config.json says that the model was trained as the other.

    transformers would load RoBERTa as a causal model without a word.
    """
    architectures = hf_config.architectures or []
    said = kind_of(architectures)
    kind = model_kind(config) or said
    if kind is None:
        raise unknown_kind(config.path, architectures)
    onto = kind is Kind.classifier  # a head is put on a model of any kind
    if said not in (None, kind) and not onto:
        raise bad_value(
            "model.kind",
            kind.value,
            f"{said.value}, as config.json says {', '.join(architectures)}",
        )
    return kind


def _load_weights(
    path: str, config: ModelConfig, kind: Kind, classes: int | None, seed: int
) -> PreTrainedModel:
    model: PreTrainedModel
    if kind is Kind.classifier and classes is None:
        raise bad_value("model.kind", kind.value, "causal or masked, as the task has no classes")
    head = {"num_labels": classes} if kind is Kind.classifier else {}
    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with reading(path), _no_report() if head else nullcontext():
        model, info = _CLASSES[kind].from_pretrained(
            path,
            dtype=DTYPES[config.dtype],
            device_map=config.device_map,
            output_loading_info=True,
            # Left off, wrong shapes end in an error that names none of them; check_loaded does.
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            **head,
        )
    info = _share_biases(model, info)
    drawn = draw_head(model, info["missing_keys"], seed) if head else set()
    check_loaded(model, {**info, "missing_keys": set(info["missing_keys"]) - drawn})
    return model


@contextmanager
def _no_report() -> Iterator[None]:
    """Without transformers' warning of a new head; what else it warns of is checked here."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _share_biases(
    model: PreTrainedModel, info: dict[str, Collection[Any]]
) -> dict[str, Collection[Any]]:
    """Mend the bias of an untied masked-LM head; returns ``info`` without the keys mended.

    RoBERTa's ``lm_head.bias`` and ``lm_head.decoder.bias`` are one parameter under two names, and
    ``save_pretrained`` writes one of them. Where tie_word_embeddings is false, transformers 5.23
    reads them as two and zeroes the one that is absent: ours to point at its partner again.
    """
    missing = set(info["missing_keys"])
    for pair in (model._tied_weights_keys or {}).items():
        absent = [name for name in pair if name in missing]
        if len(absent) == 1 and absent[0].endswith(".bias"):
            (present,) = set(pair) - {absent[0]}
            owner, _, attribute = absent[0].rpartition(".")
            setattr(model.get_submodule(owner), attribute, model.get_parameter(present))
            missing.discard(absent[0])
    return {**info, "missing_keys": missing}


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = word_embeddings(model).shape[0]
    if len(tokenizer) > rows:
        raise UserError(
            f"model.path: the tokenizer knows {len(tokenizer)} tokens, the model has embeddings "
            f"for {rows}; they are not of the same model: fetch both again"
        )


def _untie_head(model: PreTrainedModel) -> None:
    """Give the head its own copy of the word embeddings, as the published RoBERTa runs have it.

    The bias stays what it was (spec lozo_mezo 3.6, T8). ``config`` says so too, else the next
    ``tie_weights`` would undo it.
    """
    head = output_layer(model)
    if head is None:
        raise UserError(
            f"model.untie_head: a {type(model).__name__} has no head to untie; allowed: false"
        )
    tied = head.weight
    head.weight = nn.Parameter(tied.detach().clone(), requires_grad=tied.requires_grad)
    model.config.tie_word_embeddings = False
