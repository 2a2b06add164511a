"""Write what a tuning trained: an adapter, single tensors, or the whole model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import cast

from peft import IA3Config, LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from lozo_bench.errors import UserError
from lozo_bench.models.adapter import merge
from lozo_bench.models.load import Loaded
from lozo_bench.models.locate import MOVED
from lozo_bench.models.save import base_in_peft, save_model
from lozo_bench.tuning.carriers import Carrier
from lozo_bench.tuning.deep_prompt import LayerPrompt
from lozo_bench.tuning.peft_prompts import write_for_peft
from lozo_bench.tuning.prefix import Pair
from lozo_bench.tuning.prompt import SoftPrompt
from lozo_bench.tuning.sparse import take_masks_out


def save_tuned(loaded: Loaded, out: Path, with_weights: bool = False) -> str:
    """Write what a tuning trained to the folder ``out``.

    Args:
        loaded: the model.
        out: the folder.
        with_weights: whether all weights were trained beside an adapter, which alone has
            ``requires_grad``; the adapter is then merged into them, if it can be.

    Returns:
        Which form was written. ``adapter``: LoRA or (IA)^3, for peft's ``from_pretrained``. If an
        earlier adapter was merged into the weights, the new one is merged, too, because the model
        that it was trained on is saved nowhere.
        A prefix or a soft prompt is written in the format of ``tensors`` as well, from which
        ``model.adapter`` continues.
        ``tensors``: a deep prompt or shortcuts, or a prefix of a model that peft cannot give one
        that computes the same: X by name in ``moved.safetensors``, for
        ``load_state_dict(strict=False)`` after the same tuning. ``weights``: the whole model, for
        transformers. ``weights and tensors``: both, so that ``model.path`` and ``model.adapter``
        are this folder.
    """
    has_adapter, merged = hasattr(loaded.model, "peft_config"), loaded.merged or with_weights
    if needs_this_package(loaded.model):
        if has_adapter and loaded.merged:
            raise UserError(
                "tuning=shortcuts: they cannot be added to the weights, into which the adapter of "
                "model.adapter was merged, so there is no format for both; what to do: train "
                "without model.adapter, or from its merged model"
            )
        loaded.tokenizer.save_pretrained(out)
        trained = _trained(loaded.model)
        save_file(_copied_to_cpu(trained), out / MOVED)
        if not with_weights:
            return "adapter" if write_for_peft(loaded, set(trained), out) else "tensors"
        weights = {n: x for n, x in loaded.model.state_dict().items() if n not in trained}
        loaded.model.save_pretrained(out, state_dict=weights)
        return "weights and tensors"
    if has_adapter and not merged:
        _save_adapter(loaded, out)
        return "adapter"
    if has_adapter:
        merge(loaded.model)
    take_masks_out(loaded.model)
    save_model(loaded, out)
    return "weights"


def needs_this_package(model: nn.Module) -> bool:
    """Return whether a prefix, a prompt or shortcuts are in it, which peft computes otherwise."""
    kinds = (Pair, SoftPrompt, LayerPrompt, Carrier)
    return any(isinstance(module, kinds) for module in model.modules())


def _save_adapter(loaded: Loaded, out: Path) -> None:
    """Write a peft adapter, with the modules that were trained whole (LoRA's ``train_head``)."""
    model = loaded.model
    adapter = get_peft_model_state_dict(model, save_embedding_layers=False)
    whole = sorted(_trained_whole(model))
    for module in whole:
        state = model.get_submodule(module).state_dict()
        adapter |= {f"{module}.{name}": x for name, x in state.items()}
    config = copy.deepcopy(cast(LoraConfig | IA3Config, model.peft_config["default"]))
    for name, value in base_in_peft(loaded).items():
        setattr(config, name, value)
    config.modules_to_save = whole or None
    config.inference_mode = True
    loaded.tokenizer.save_pretrained(out)
    config.save_pretrained(str(out))
    tensors = {f"base_model.model.{name}": x for name, x in adapter.items()}
    save_file(_copied_to_cpu(tensors), out / "adapter_model.safetensors")


def _trained_whole(model: nn.Module) -> set[str]:
    """Return the largest modules of which all parameters are trained, such as the head."""
    frozen = {name for name, x in model.named_parameters() if not x.requires_grad}
    whole = set()
    for name in _trained(model):
        if not _is_adapter_parameter(name):
            parts = name.split(".")[:-1]
            around = (".".join(parts[:i]) for i in range(1, len(parts) + 1))
            whole |= set(
                [at for at in around if not any(x.startswith(f"{at}.") for x in frozen)][:1]
            )
    return whole


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: x for name, x in model.named_parameters() if x.requires_grad}


def _is_adapter_parameter(name: str) -> bool:
    return ".lora_" in name or ".ia3_l." in name


def _copied_to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy each tensor to its own CPU memory: safetensors refuses tensors that share memory."""
    return {name: x.detach().to("cpu", copy=True).contiguous() for name, x in tensors.items()}
