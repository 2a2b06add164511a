"""Load a model and its tokenizer through transformers 5 and check both.

These stay as transformers sets them: ``requires_grad``, the dropout rates (inactive in eval mode)
and the attention implementation.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from transformers.utils.peft_utils import find_adapter_config_file

from lozo_bench.config.schema import Dtype, Kind, ModelConfig
from lozo_bench.errors import UserError, bad_value
from lozo_bench.models.autocast import autocast
from lozo_bench.models.check import check_finite, check_loaded, output_layer, word_embeddings
from lozo_bench.models.checkpointing import checkpoint_layers
from lozo_bench.models.devices import DeviceMap, check_device_map, choose_device, placement, prepare
from lozo_bench.models.head import draw_head
from lozo_bench.models.locate import (
    ADAPTER_CONFIG,
    adapter_beside,
    kind_of,
    locate,
    locate_adapter,
    model_kind,
    unknown_kind,
)
from lozo_bench.models.probes import check_causal
from lozo_bench.models.reading import check_access, reading
from lozo_bench.models.tokenizer import load_tokenizer
from lozo_bench.models.vocabulary import check_vocabulary

if TYPE_CHECKING:
    from lozo_bench.models.adapter import Adapter

DTYPES = {Dtype.fp32: torch.float32, Dtype.bf16: torch.bfloat16, Dtype.fp16: torch.float16}
CLASSES = {
    Kind.causal: AutoModelForCausalLM,
    Kind.masked: AutoModelForMaskedLM,
    Kind.classifier: AutoModelForSequenceClassification,
}


def computed_in(config: ModelConfig) -> torch.dtype:
    """Return the least exact dtype that forward passes of a model with this config compute in."""
    return DTYPES[Dtype(config.autocast or config.dtype)]


@dataclass(frozen=True)
class Loaded:
    """A loaded model in eval mode, with its tokenizer.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        kind: how the model predicts.
        device: the device of its inputs.
        name: ``model.name``.
        new_head: the weights of a classifier's head that were drawn, because the checkpoint does
            not have them.
        adapter: ``model.adapter``, which is not in the model yet.
        merged: whether the adapter was merged into the weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    device: torch.device
    name: str
    new_head: tuple[nn.Parameter, ...] = ()
    adapter: Adapter | None = None
    merged: bool = False


def load(config: ModelConfig, classes: int | None = None, seed: int = 0) -> Loaded:
    """Load and check the model and tokenizer that ``config`` names.

    Args:
        config: the config node ``model``.
        classes: the number of classes of a classifier; None if the task has no classes.
        seed: keys the initial values of a classifier head that the checkpoint does not have (see
            `head.py`). No other weight may be random.

    Raises:
        UserError: the files are missing or damaged, a weight would be left random, the architecture
            does not fit ``model.kind``, a causal model sees later tokens, the tokenizer cannot do
            what ``model.bos_token`` asks for, or this machine does not have the device.
    """
    device = choose_device(config.device)
    prepare(device)
    check_device_map(config)
    path = locate(config.path)
    check_access(path)
    with reading(path):
        hf_config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    adapter = _adapter(config, path)
    _check_not_quantised(hf_config, path)
    kind = _fitting_kind(config, hf_config)
    tokenizer = load_tokenizer(path, config.bos_token, finds_end=kind is Kind.classifier)
    if kind is Kind.masked and tokenizer.mask_token is None:
        raise UserError(
            f"model.path: the tokenizer of {path} has no mask token; what to do: choose another "
            "model"
        )
    where = placement(config.device_map, device)
    model, drawn = _load_weights(path, config, kind, classes, seed, where)
    if kind is Kind.classifier:
        # transformers uses this id to find the last token of a row that is not padding.
        model.config.pad_token_id = tokenizer.pad_token_id
    check_vocabulary(model, tokenizer, path)
    if config.untie_head:
        _untie_head(model)
    if config.device_map is None:
        model.to(device)  # type: ignore[arg-type]  # transformers wraps torch's `to` untyped
    else:
        device = word_embeddings(model).device
    check_finite(model.named_parameters(), "model.path")
    model.train(mode=False)
    if kind is Kind.causal:
        check_causal(model, device)
    if config.gradient_checkpointing:
        checkpoint_layers(model)
    if config.autocast is not None:
        autocast(model, device.type, DTYPES[Dtype(config.autocast)])
    new_head = tuple(x for name, x in model.named_parameters() if name in drawn)
    return Loaded(model, tokenizer, kind, device, config.name, new_head, adapter)


def _adapter(config: ModelConfig, path: str) -> Adapter | None:
    """Return the adapter to start from; refuse one that is in the model's folder unasked."""
    folder = locate_adapter(config)
    if not Path(path).is_dir():
        with reading(path):
            left = find_adapter_config_file(path)
        if left is not None:
            first = f"run `hf download {path} --local-dir DIR` and set model.path=DIR; then, "
            raise adapter_beside(f"{ADAPTER_CONFIG} of {path}", "DIR", first)
    if folder is None:
        return None
    # It needs peft, which a run without an adapter does not.
    from lozo_bench.models.adapter import read_adapter

    return read_adapter(folder, config.path)


def _check_not_quantised(hf_config: PreTrainedConfig, path: str) -> None:
    quantised = getattr(hf_config, "quantization_config", None)
    if quantised is None:
        return
    settings = quantised if isinstance(quantised, dict) else quantised.to_dict()
    raise UserError(
        f"model.path: the config.json of {path} says that its weights are quantised "
        f"({settings.get('quant_method', 'by an unknown method')}), and quantised weights can be "
        "neither perturbed nor trained here; what to do: take the checkpoint that they were made "
        "from; model.dtype=bf16 halves its memory"
    )


def _fitting_kind(config: ModelConfig, hf_config: PreTrainedConfig) -> Kind:
    """Return the kind that ``model.kind`` asks for.

    Raise UserError if config.json says that the model was trained as another kind: transformers
    would load RoBERTa as a causal model without a warning.
    """
    architectures = hf_config.architectures or []
    trained_as = kind_of(architectures)
    kind = model_kind(config) or trained_as
    if kind is None:
        raise unknown_kind(config.path, architectures)
    gets_head = kind is Kind.classifier  # a classifier head can be put on a model of any kind
    if trained_as not in (None, kind) and not gets_head:
        raise bad_value(
            "model.kind",
            kind.value,
            f"{trained_as.value}, as config.json names {', '.join(architectures)}",
        )
    return kind


def _load_weights(
    path: str,
    config: ModelConfig,
    kind: Kind,
    classes: int | None,
    seed: int,
    device_map: DeviceMap,
) -> tuple[PreTrainedModel, set[str]]:
    """Return the model and the names of the weights that are new."""
    model: PreTrainedModel
    if kind is Kind.classifier and classes is None:
        raise bad_value("model.kind", kind.value, "causal or masked, as the task has no classes")
    head = {"num_labels": classes} if kind is Kind.classifier else {}
    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with reading(path), _without_warnings() if head else nullcontext():
        model, info = CLASSES[kind].from_pretrained(
            path,
            dtype=DTYPES[config.dtype],
            device_map=device_map,
            output_loading_info=True,
            # Without this, a wrong shape raises an error that names no weight; check_loaded
            # names each one.
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            **_without_adapter(path),
            **head,
        )
    info = _share_biases(model, info)
    drawn = draw_head(model, info["missing_keys"], seed) if head else set()
    check_loaded(model, {**info, "missing_keys": set(info["missing_keys"]) - drawn})
    return model, drawn


def _without_adapter(path: str) -> dict[str, Any]:
    """Return arguments that keep transformers from attaching an adapter of the model's folder.

    It then looks for one in a subfolder that does not exist.
    """
    return {"adapter_kwargs": {"subfolder": "none"}} if Path(path).is_dir() else {}


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence transformers' warning about a new head; `check_loaded` checks everything else."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _share_biases(
    model: PreTrainedModel, info: dict[str, Collection[Any]]
) -> dict[str, Collection[Any]]:
    """Restore the sharing of an untied masked-LM head's bias.

    RoBERTa's ``lm_head.bias`` and ``lm_head.decoder.bias`` are one parameter under two names, and
    ``save_pretrained`` writes only one of them. If tie_word_embeddings is false, transformers 5.23
    loads them as two parameters and sets the absent one to zero. Here the absent name is made to
    refer to the loaded parameter again.

    Returns:
        ``info`` without the missing keys that were restored.
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


def _untie_head(model: PreTrainedModel) -> None:
    """Give the head its own copy of the word embeddings.

    MeZO's code for RoBERTa (medium_models/src/models.py:40-129) does not tie the input and output
    embeddings; it trains two 50265 x 1024 matrices. The bias is not changed.
    ``config.tie_word_embeddings`` is set to false, because the next ``tie_weights()`` would
    otherwise tie the two matrices again.
    """
    head = output_layer(model)
    if head is None:
        raise UserError(
            f"model.untie_head: a {type(model).__name__} has no head to untie; allowed: false"
        )
    tied = head.weight
    head.weight = nn.Parameter(tied.detach().clone(), requires_grad=tied.requires_grad)
    model.config.tie_word_embeddings = False
