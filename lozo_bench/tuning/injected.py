"""Put peft's layers into a model; the model keeps its class."""

from __future__ import annotations

import torch
from peft import PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from lozo_bench.engine.tensors import wide


def inject(model: PreTrainedModel, config: PeftConfig) -> None:
    """Replace the layers that ``config`` targets by peft's layers.

    peft initialises them from torch's global generators. The state of these generators is restored
    afterwards, and the caller must initialise the new parameters again from `Draws`.
    """
    used = sorted({x.device.index for x in model.parameters() if x.device.type == "cuda"})
    with torch.random.fork_rng(devices=used):
        inject_adapter_in_model(config, model)
    model.train(mode=False)  # new modules are created in training mode


def new_dtype(layer: BaseTunerLayer) -> torch.dtype:
    """Return the dtype of adapter parameters beside this layer's weight: float32 or wider."""
    return wide(layer.get_base_layer().get_parameter("weight").dtype)


def set_initial_values(parameter: nn.Parameter, values: torch.Tensor) -> None:
    """Set an adapter's initial values. It takes their dtype and stays on its device."""
    parameter.data = values.to(parameter.device).contiguous()


def take_out(model: PreTrainedModel) -> None:
    """Put the model's own layers back in place of peft's, whose values are lost."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, layer.get_base_layer())
    del model.peft_config
