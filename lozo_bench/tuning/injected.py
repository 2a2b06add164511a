"""Putting peft's layers into a model, which keeps its class."""

from __future__ import annotations

import torch
from peft import PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from lozo_bench.engine.tensors import wide


def inject(model: PreTrainedModel, config: PeftConfig) -> None:
    """Replace the layers that ``config`` targets by peft's.

    peft starts them from torch's global generators, which are put back afterwards: callers start
    them again from `Draws`.
    """
    used = sorted({x.device.index for x in model.parameters() if x.device.type == "cuda"})
    with torch.random.fork_rng(devices=used):
        inject_adapter_in_model(config, model)
    model.train(mode=False)  # new modules are made in training mode


def new_dtype(layer: BaseTunerLayer) -> torch.dtype:
    """Of what stands beside a layer's weight."""
    return wide(layer.get_base_layer().get_parameter("weight").dtype)


def start(parameter: nn.Parameter, values: torch.Tensor) -> None:
    """Give an adapter its first values; it takes their type and stays on its device."""
    parameter.data = values.to(parameter.device)
