"""Start a tuning from an earlier adapter (``model.adapter``).

The same tuning continues to train the adapter: it has the same rank, scale and layers, and what was
trained whole beside it is trained again. Before any other tuning, the adapter is merged into the
weights.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from lozo_bench.config.schema import Kind
from lozo_bench.errors import UserError
from lozo_bench.models.adapter import Adapter, fill, insert, merge
from lozo_bench.models.check import listed
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.adalora import AdaLora
from lozo_bench.tuning.base import Tuned, Tuning
from lozo_bench.tuning.head import head_parameters, with_trainable_head
from lozo_bench.tuning.ia3 import Ia3
from lozo_bench.tuning.lora import Lora

log = logging.getLogger(__name__)
# What does not change the function of an adapter that has its values.
_NOT_SHAPE = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "init_ia3_weights", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_dropout", "modules_to_save", "peft_version", "revision",
    "task_type",
}  # fmt: skip
_MODULES = {"target_modules", "feedforward_modules"}


def tune(tuning: Tuning, loaded: Loaded, draws: Draws) -> tuple[Loaded, Tuned]:
    """Prepare the model for training, from ``loaded.adapter`` if there is one.

    Args:
        tuning: the run's tuning.
        loaded: the model, changed in place.
        draws: source of the initial values that do not come from the adapter.

    Returns:
        ``loaded``, which says whether the adapter was merged, and what is trained.

    Raises:
        UserError: the tuning cannot be used with the model, or the adapter with one of both.
    """
    adapter = loaded.adapter
    if adapter is None:
        return loaded, with_trainable_head(tuning.tune(loaded, draws), loaded)
    if adapter.config is None:
        tuned = with_trainable_head(tuning.tune(loaded, draws), loaded)
        _copy(adapter, tuned.X)
        return loaded, tuned
    if _continues(tuning, adapter.config, loaded):
        log.info("model.adapter: training continues from the values in %s", adapter.folder)
        tuned = with_trainable_head(tuning.tune(loaded, draws), loaded)
        fill(loaded.model, adapter)
        return loaded, tuned
    log.info("model.adapter: %s is merged into the weights", adapter.folder)
    insert(loaded.model, adapter)
    merge(loaded.model)
    loaded.model.requires_grad_(True)
    loaded = replace(loaded, merged=True)
    return loaded, with_trainable_head(tuning.tune(loaded, draws), loaded)


def _continues(tuning: Tuning, earlier: PeftConfig, loaded: Loaded) -> bool:
    """Return whether ``tuning`` trains exactly what was trained before."""
    if not isinstance(tuning, (Lora, AdaLora, Ia3)):
        return False
    ours = tuning.config(loaded.model)
    if _shape(ours, loaded.model) != _shape(earlier, loaded.model):
        return False
    trained = {id(x) for x in loaded.new_head}
    if loaded.kind is Kind.classifier or getattr(tuning, "train_head", False):
        trained |= head_parameters(loaded, "model.adapter")
    assert loaded.adapter is not None
    parameters = loaded.model.named_parameters()
    whole = {id(x) for name, x in parameters if loaded.adapter.holds_whole(name)}
    return whole <= trained


def _shape(config: PeftConfig, model: nn.Module) -> Mapping[str, Any]:
    """Return everything that decides which layers an adapter has, and how they compute."""
    found = {key: value for key, value in config.to_dict().items() if key not in _NOT_SHAPE}
    names = [name for name, _ in model.named_modules()]
    for key in _MODULES & set(found):
        named: Any = copy.copy(config)
        named.target_modules, named.modules_to_save = found[key] or [], None
        found[key] = [name for name in names if check_target_module_exists(named, name)]
    return found


def _copy(adapter: Adapter, X: Mapping[str, nn.Parameter]) -> None:
    """Copy the trained tensors of a prefix or a soft prompt into X."""
    saved = {name: tuple(x.shape) for name, x in adapter.tensors.items()}
    wanted = {name: tuple(x.shape) for name, x in X.items()}
    if saved != wanted:
        raise UserError(
            f"model.adapter: {adapter.folder} has the tensors that another tuning trained "
            f"({listed([f'{name} {shape}' for name, shape in saved.items()])}); allowed: with the "
            "tuning that it was trained with, such as tuning=prefix, and the same tuning.tokens"
        )
    with torch.no_grad():
        for name, x in X.items():
            x.copy_(adapter.tensors[name])
