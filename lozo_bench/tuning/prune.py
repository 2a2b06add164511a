"""Take the low-rank modules that are off out of a model, so that plain peft can save the rest."""

from __future__ import annotations

from typing import cast

import torch
from peft import LoraConfig
from torch import nn

from lozo_bench.errors import UserError
from lozo_bench.tuning.gates import Gates
from lozo_bench.tuning.low_rank_modules import LowRankModule


def prune(model: nn.Module, gates: Gates | None) -> None:
    """Make a model's adapter one of what is on alone. The gates cannot be used afterwards.

    Modules that are off are taken out. Modules that are on in part keep their first components:
    they get a rank of their own, and the alpha with which alpha / rank stays the same.

    Raises:
        UserError: the tuning has no gates, nothing is on, or a shortcut is, which plain peft has no
            format for.
    """
    if gates is None:
        raise UserError("--pruned: this tuning has no modules that can be off; leave it out")
    ranks = gates.ranks.tolist()
    kept = [(module, k) for module, k in zip(gates.modules, ranks, strict=True) if k > 0]
    _check(kept, gates)
    config = cast(LoraConfig, model.peft_config["default"])  # type: ignore[index]
    for module, k in zip(gates.modules, ranks, strict=True):
        if k == 0:
            owner, _, name = module.name.rpartition(".")
            _take_out(model.get_submodule(owner), name, module)
        elif k < module.rank:
            _cut(module, k)
    config.target_modules = [module.name for module, _ in kept]
    own = {module.name: (k, module.scaling * k) for module, k in kept if k != config.r}
    config.rank_pattern = {name: k for name, (k, _) in own.items()}
    config.alpha_pattern = {name: alpha for name, (_, alpha) in own.items()}
    gates.release()


def require_all_on(gates: Gates, step: int) -> None:
    """Refuse to write an adapter in which modules would come back on.

    Raises:
        UserError: a module is off, at least in part.
    """
    off = int((gates.ranks < gates.full).sum())
    if off:
        raise UserError(
            f"step {step}: {off} of {len(gates.modules)} low-rank modules are off, and whoever "
            "loads the file would have all of them on; what to do: --pruned writes what is on"
        )


def _check(kept: list[tuple[LowRankModule, int]], gates: Gates) -> None:
    if not gates.plain_when_off:
        raise UserError(
            "--pruned: with tuning.shortcut_norm=repeat the blocks repeat their norms, which plain "
            "peft has no format for; what to do: train with shortcut_norm=pre or tuning=gated_lora"
        )
    if shortcuts := [module.name for module, _ in kept if module.is_shortcut]:
        raise UserError(
            f"--pruned: {len(shortcuts)} shortcuts are on, such as {shortcuts[0]}, which plain "
            "peft has no format for; what to do: train with tuning=gated_lora for an adapter"
        )
    if not kept:
        raise UserError("--pruned: no low-rank module is on; what to do: choose another step")


def _take_out(owner: nn.Module, name: str, module: LowRankModule) -> None:
    if module.is_shortcut:
        delattr(owner, name)
    else:
        setattr(owner, name, module.peft.get_base_layer())


@torch.no_grad()
def _cut(module: LowRankModule, k: int) -> None:
    module.peft.r["default"] = k
    module.A.data, module.B.data = module.A[:k].clone(), module.B[:, :k].clone()
