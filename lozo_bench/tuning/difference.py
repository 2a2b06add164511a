"""Write the difference between two states of a model as a LoRA adapter for peft.

The difference of each matrix W of a linear layer is factored by a singular value decomposition. If
it has the rank of the adapter or less, the product of the factors equals it up to rounding.
Vectors, such as biases, and embeddings have no low-rank form: those that changed are written whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lozo_bench.errors import UserError
from lozo_bench.models.load import Loaded
from lozo_bench.models.save import base_in_peft
from lozo_bench.models.tokenizer import save_tokenizer


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        matrices: how many matrices have factors.
        rank: the largest rank among them.
        error: the Frobenius norm of what the factors leave out, relative to that of all differences
            that they stand for.
        whole: the modules that were written whole, and biases.
    """

    matrices: int
    rank: int
    error: float
    whole: list[str]


def write_difference(
    loaded: Loaded, before: Mapping[str, Tensor], rank: Callable[[Tensor], int], out: Path
) -> Written:
    """Write what changed in the model since ``before`` to the folder ``out``.

    Args:
        loaded: the model with its weights of today.
        before: earlier weights by name, on the CPU; all others did not change.
        rank: returns the rank of the factors for a matrix; more than it can have is cut.
        out: the folder.

    Raises:
        UserError: no linear layer changed.
    """
    model = loaded.model
    now = dict(model.named_parameters(remove_duplicate=False))
    changed = {name: x for name, x in now.items() if name in before and not _equal(x, before[name])}
    linear = {name: x for name, x in changed.items() if _is_linear(model, name, now)}
    whole = _whole(model, changed, linear)
    linear = {name: x for name, x in linear.items() if not _is_below(name, whole)}
    if not linear:
        raise UserError("--as-lora: no linear layer changed, so there is nothing to write")
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    missed = total = 0.0
    for name, x in linear.items():
        module = name.removesuffix(".weight")
        D = x.detach().double() - before[name].to(x.device).double()
        if isinstance(model.get_submodule(module), Conv1D):  # it stores [in, out]
            D = D.T
        ranks[module] = min(rank(D), *D.shape)
        B, A = _factors(D, ranks[module])
        missed += float((D - B @ A).square().sum())
        total += float(D.square().sum())
        tensors[f"{module}.lora_A.weight"] = A.to(torch.float32)
        tensors[f"{module}.lora_B.weight"] = B.to(torch.float32)
    biases = {name: x for name, x in changed.items() if name.endswith(".bias")}
    biases = {name: x for name, x in biases.items() if name.removesuffix(".bias") in ranks}
    for name, x in biases.items():
        tensors[f"{name.removesuffix('.bias')}.base_layer.bias"] = x
    for module in whole:
        for name, x in model.get_submodule(module).state_dict().items():
            tensors[f"{module}.{name}"] = x
    _save(loaded, ranks, whole, bool(biases), tensors, out)
    error = (missed / total) ** 0.5
    return Written(len(ranks), max(ranks.values()), error, [*whole, *biases])


def _factors(D: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return B [m, rank] and A [rank, n] with the product closest to D."""
    U, S, Vh = torch.linalg.svd(D, full_matrices=False)
    root = S[:rank].sqrt()
    return U[:, :rank] * root, root[:, None] * Vh[:rank]


def _equal(x: Tensor, before: Tensor) -> bool:
    return torch.equal(x.detach().cpu(), before)


def _is_linear(model: nn.Module, name: str, all_weights: Mapping[str, Tensor]) -> bool:
    """Return whether it is the matrix of a linear layer that shares it with no other module."""
    module, _, attribute = name.rpartition(".")
    if attribute != "weight" or not isinstance(model.get_submodule(module), (nn.Linear, Conv1D)):
        return False
    x = all_weights[name]
    return sum(other is x for other in all_weights.values()) == 1


def _whole(
    model: PreTrainedModel, changed: Mapping[str, Tensor], linear: Mapping[str, Tensor]
) -> list[str]:
    """Return the modules whose own parameters changed and have no factors.

    All modules that share a matrix are among them.
    """
    with_factors = {name.removesuffix(".weight") for name in linear}
    shared = {id(x) for x in changed.values()}
    modules = {
        name.rpartition(".")[0]
        for name, x in model.named_parameters(remove_duplicate=False)
        if id(x) in shared
    }
    alone = modules - with_factors
    return sorted(name for name in alone if not _is_below(name, alone))


def _is_below(name: str, modules: Collection[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _save(
    loaded: Loaded,
    ranks: Mapping[str, int],
    whole: list[str],
    biases: bool,
    tensors: Mapping[str, Tensor],
    out: Path,
) -> None:
    model = loaded.model
    most = max(ranks.values())
    others = {module: rank for module, rank in ranks.items() if rank != most}
    conv = any(isinstance(model.get_submodule(module), Conv1D) for module in ranks)
    config = LoraConfig(
        r=most,
        lora_alpha=most,
        target_modules=list(ranks),
        rank_pattern=others,
        alpha_pattern=dict(others),
        modules_to_save=whole or None,
        bias="lora_only" if biases else "none",
        fan_in_fan_out=conv,
        inference_mode=True,
        **base_in_peft(loaded),
    )
    out.mkdir(parents=True, exist_ok=True)
    save_tokenizer(loaded.tokenizer, out)
    config.save_pretrained(str(out))
    save_file(
        {
            f"base_model.model.{name}": x.detach().to("cpu", copy=True).contiguous()
            for name, x in tensors.items()
        },
        out / "adapter_model.safetensors",
    )
