"""Write trained models and adapters in the formats of transformers and peft."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig, TaskType
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from lozo_bench.config.schema import Kind
from lozo_bench.models.load import Loaded
from lozo_bench.models.tokenizer import save_tokenizer


def save_model(loaded: Loaded, out: Path) -> None:
    """Write the model and its tokenizer to the folder ``out``, for ``from_pretrained``."""
    save_tokenizer(loaded.tokenizer, out)
    loaded.model.save_pretrained(out)


def base_in_peft(loaded: Loaded) -> dict[str, Any]:
    """Return what an adapter's config says of its model, so that peft's Auto classes load both.

    peft has no type of task for masked models, and adds a head of its own to classifiers. So for
    these two, the class of the model is named instead.
    """
    model = loaded.model
    base = {"base_model_name_or_path": str(getattr(model.config, "_name_or_path", ""))}
    if loaded.kind is Kind.causal:
        return base | {"task_type": TaskType.CAUSAL_LM}
    kind = type(model)
    named = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
    return base | {"auto_mapping": named}


def save_adapter(
    loaded: Loaded, U: Mapping[str, Tensor], V: Mapping[str, Tensor], scale: float, out: Path
) -> None:
    """Write the updates ``scale * U V^T`` as a LoRA adapter for peft.

    Args:
        loaded: the model, without the adapter.
        U: for the name of each weight W [m, n], a matrix [m, r].
        V: for the same names, matrices [n, r].
        scale: LoRA's alpha / r.
        out: the folder to write to.
    """
    r = next(iter(U.values())).shape[1]
    tensors: dict[str, Tensor] = {}
    transposed = False
    for name in U:
        module = name.removesuffix(".weight")
        B, A = U[name], V[name].T
        if isinstance(loaded.model.get_submodule(module), Conv1D):  # Conv1D stores [in, out]
            transposed, B, A = True, V[name], U[name].T
        tensors[f"base_model.model.{module}.lora_A.weight"] = A.detach().cpu().contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = B.detach().cpu().contiguous()
    config = LoraConfig(
        r=r,
        lora_alpha=scale * r,  # type: ignore[arg-type]  # peft only divides it by r
        target_modules=[name.removesuffix(".weight") for name in U],
        fan_in_fan_out=transposed,
        inference_mode=True,
        **base_in_peft(loaded),
    )
    save_tokenizer(loaded.tokenizer, out)
    config.save_pretrained(str(out))
    save_file(tensors, out / "adapter_model.safetensors")
