"""Read an earlier adapter, from which a run starts, and put it into a model.

An adapter is a folder: of peft (``adapter_config.json``), or with the trained tensors of a prefix
or a soft prompt, for which `tuning/save.py` has a format of its own. A folder may have both.
"""

from __future__ import annotations

import copy
import json
import logging
import pickle
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer, cast_adapter_dtype
from peft.utils.save_and_load import load_peft_weights
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from lozo_bench.engine.device_errors import raise_if_of_the_device
from lozo_bench.errors import UserError, did_you_mean
from lozo_bench.models.check import check_finite, listed
from lozo_bench.models.locate import ADAPTER_CONFIG, MOVED

log = logging.getLogger(__name__)
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, SafetensorError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Adapter:
    """An adapter as it was saved.

    Attributes:
        folder: where it is.
        config: peft's config; None for a prefix or a soft prompt of this package.
        tensors: by their names in the file.
    """

    folder: Path
    config: PeftConfig | None
    tensors: dict[str, Tensor]

    def holds_whole(self, name: str) -> bool:
        """Return whether a weight belongs to a module that was trained whole, such as the head."""
        modules = getattr(self.config, "modules_to_save", None) or []
        return any(f".{module}." in f".{name}" for module in modules)


def read_adapter(folder: Path, base: str) -> Adapter:
    """Read and check the files of an adapter.

    Args:
        folder: it exists and has one of the two forms (see `locate_adapter`).
        base: ``model.path``; a warning says so if the adapter was made for another model.

    Raises:
        UserError: a file is missing or damaged, or its kind is unknown.
    """
    try:
        if (folder / MOVED).is_file():  # beside it, the same in peft's format
            adapter = Adapter(folder, None, load_file(folder / MOVED))
        else:
            _check_kind(folder / ADAPTER_CONFIG)
            if not any((folder / name).is_file() for name in _WEIGHTS):
                raise UserError(
                    f"model.adapter: {folder} has no {' or '.join(_WEIGHTS)}; what to do: copy or "
                    "download all files of the adapter again"
                )
            config = PeftConfig.from_pretrained(str(folder))
            adapter = Adapter(folder, config, load_peft_weights(str(folder), device="cpu"))
    except UserError:
        raise
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"model.adapter: cannot read {folder} ({type(error).__name__}: {reason}); what to do: "
            "copy or download all files of the adapter again"
        ) from error
    check_finite(adapter.tensors.items(), f"model.adapter: {folder}")
    made_for = getattr(adapter.config, "base_model_name_or_path", None)
    if made_for and Path(made_for).name != Path(base.partition(":")[2] or base).name:
        log.warning(
            "model.adapter: %s says that it was made for %s, but model.path is %s",
            folder,
            made_for,
            base,
        )
    return adapter


def insert(model: PreTrainedModel, adapter: Adapter) -> None:
    """Add the adapter's layers to the model, with their values; its class stays.

    Raises:
        UserError: the adapter does not fit the model, or belongs to no kind that changes weights.
    """
    assert adapter.config is not None
    config: Any = copy.deepcopy(adapter.config)
    config.modules_to_save = None  # `fill` writes them into the model itself
    used = sorted({x.device.index for x in model.parameters() if x.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=used):
            inject_adapter_in_model(config, model)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        raise_if_of_the_device(error)
        raise _misfit(adapter, str(error)) from error
    cast_adapter_dtype(model, "default")
    fill(model, adapter)
    model.train(mode=False)  # new modules are created in training mode


def fill(model: PreTrainedModel, adapter: Adapter) -> None:
    """Set the values of the adapter's layers, which are in the model, and what was trained whole.

    Raises:
        UserError: the file lacks a value, has one too many, or one of another shape.
    """
    assert adapter.config is not None
    _check_not_shared(model, adapter)
    try:
        found: Any = set_peft_model_state_dict(model, adapter.tensors)
    except (RuntimeError, KeyError) as error:
        raise_if_of_the_device(error)
        raise _misfit(adapter, str(error)) from error
    missing = _missing(model, adapter, found.missing_keys)
    if missing:
        raise _misfit(adapter, f"it lacks {listed(missing)}, which would be random")
    if found.unexpected_keys:
        raise _misfit(adapter, f"the model has no place for {listed(found.unexpected_keys)}")


def merge(model: PreTrainedModel) -> None:
    """Add what the adapter in the model computes to the weights, and take its layers out again."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, layer.get_base_layer())
    del model.peft_config


def _check_kind(file: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    kind = content.get("peft_type") if isinstance(content, dict) else None
    if kind not in set(PEFT_TYPE_TO_CONFIG_MAPPING):
        known = [str(name.value) for name in PEFT_TYPE_TO_CONFIG_MAPPING]
        raise UserError(
            f"model.adapter: {file} names the peft_type {kind!r}, which the installed peft does "
            f"not know{did_you_mean(str(kind), known)}; what to do: install a newer peft, or "
            "choose another adapter"
        )


def _missing(model: PreTrainedModel, adapter: Adapter, absent: Collection[str]) -> list[str]:
    """Return which of the ``absent`` weights of the model the adapter should have had."""
    assert adapter.config is not None
    kind: Any = adapter.config.peft_type
    part = PEFT_TYPE_TO_PREFIX_MAPPING[kind]
    layers = [name for name in absent if part in name.rpartition(".default")[0]]
    names = _names(model).values()  # one of the names of a shared weight is enough
    whole = [aliases[0] for aliases in names if set(aliases) <= set(absent)]
    return layers + [name for name in whole if adapter.holds_whole(name)]


def _names(model: PreTrainedModel) -> dict[int, list[str]]:
    """Return all names of each weight, by its id."""
    names: dict[int, list[str]] = {}
    for name, x in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(x), []).append(name)
    return names


def _check_not_shared(model: PreTrainedModel, adapter: Adapter) -> None:
    """Refuse a change of a matrix that two modules share, which would change both."""
    for names in _names(model).values():
        changed = [x for x in names if adapter.holds_whole(x) or x.endswith(".base_layer.weight")]
        others = set(names) - set(changed)
        if changed and others:
            raise UserError(
                f"model.adapter: {adapter.folder} changes {changed[0]}, which is tied to "
                f"{min(others)}; what to do: model.untie_head=true gives the head its own matrix"
            )


def _misfit(adapter: Adapter, why: str) -> UserError:
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    # torch puts a headline before the weights that do not fit.
    reason = " ".join(lines[1:3] if lines[0].startswith("Error(s) in") else lines)
    return UserError(
        f"model.adapter: {adapter.folder} does not fit the model: {reason.rstrip('.')}; what to "
        "do: set model.path to the model that the adapter was trained on"
    )
