"""A model without its weights: its tensors have shapes and dtypes, but no memory and no values.

The shapes come from the model's config.json, in a folder or in the cache of the hub. Of some models
of the hub, `known_models.yaml` has what is needed. Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from lozo_bench.config.schema import Kind, ModelConfig
from lozo_bench.errors import UserError, did_you_mean
from lozo_bench.models.check import output_layer
from lozo_bench.models.load import CLASSES, DTYPES, Loaded
from lozo_bench.models.locate import kind_of, locate, unknown_kind
from lozo_bench.models.reading import reading
from lozo_bench.models.tokenizer import load_tokenizer

_KNOWN = Path(__file__).with_name("known_models.yaml")
_META = torch.device("meta")


def load_without_weights(config: ModelConfig, classes: int | None = None) -> Loaded:
    """Return what `load` would return, on the meta device.

    The tokenizer is None if its files are not on this machine.

    Args:
        config: the config node ``model``.
        classes: the number of classes of a classifier.

    Raises:
        UserError: the model's config.json is not on this machine and its shapes are not known, or
            it names no kind of model.
    """
    path = locate(config.path)
    folder = _folder(path)
    hf_config = _config(path, folder)
    kind = config.kind
    if kind is Kind.auto:
        found = kind_of(hf_config.architectures or [])
        if found is None:
            raise unknown_kind(path, hf_config.architectures or [])
        kind = found
    if kind is Kind.classifier:
        hf_config.num_labels = classes or 2
    with _META:
        auto: Any = CLASSES[kind]
        model: PreTrainedModel = auto.from_config(hf_config, dtype=DTYPES[config.dtype])
    if config.untie_head:
        _untie(model)
    tokenizer: Any = None
    if folder is not None and (folder / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(str(folder), config.bos_token, kind is Kind.classifier)
    model.train(mode=False)
    return Loaded(model, tokenizer, kind, _META, config.name)


def _folder(path: str) -> Path | None:
    """Return the folder that has the model's config.json; None if this machine does not have it."""
    if Path(path).is_dir():
        return Path(path)
    cached = try_to_load_from_cache(path, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def _config(path: str, folder: Path | None) -> PreTrainedConfig:
    if folder is not None:
        with reading(path):
            found: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return found
    known = yaml.safe_load(_KNOWN.read_text(encoding="utf-8"))  # type: ignore[no-untyped-call]
    if path not in known:
        raise UserError(
            f"model.path: the shapes of {path} are not known without its config.json, which is not "
            f"on this machine{did_you_mean(path, known)}; what to do: `hf download {path} "
            "config.json`, and estimate again"
        )
    values = dict(known[path])
    made: PreTrainedConfig = AutoConfig.for_model(values.pop("model_type"), **values)
    return made


def _untie(model: PreTrainedModel) -> None:
    head = output_layer(model)
    if head is not None:
        head.weight = nn.Parameter(torch.empty_like(head.weight))
