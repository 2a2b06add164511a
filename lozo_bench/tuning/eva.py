"""EVA: LoRA whose A and ranks come from the activations of training rows.

Source: Paischer et al., "One initialization to rule them all: Fine-tuning via explained variance
adaptation", arXiv 2410.07170, with the arithmetic of peft's `tuners/lora/eva.py`. The inputs of
each layer, at all tokens of some batches of training rows, are decomposed into principal
components. Component k of a layer explains the share v_k of the variance of its inputs. Of all
components of all layers, those with the largest v_k are chosen, as many as r times the number of
layers; a layer has at most rho r of them. The k chosen components of a layer are the rows of its A,
and its rank; B is zero. A layer without any gets no matrices. With ``adjust_scaling``, alpha / r is
the same for all ranks.

The published procedure goes on until the components stop moving (tau). Here it sees a fixed number
of batches, so that its cost is known, and it decomposes exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils.incremental_pca import IncrementalPCA
from torch import Tensor, nn

from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError, bad_value
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import StartBatch, Tuned, freeze_rest
from lozo_bench.tuning.injected import inject, new_dtype, set_initial_values, take_out
from lozo_bench.tuning.lora import Lora


class Eva:
    """Train low-rank matrices beside frozen ones, from a start and with ranks that rows decide.

    Args:
        r: the mean rank over the layers.
        alpha: the product B A is multiplied by alpha / r.
        targets: a regular expression; the linear layers whose names match get an adapter.
        rho: no layer has a rank above rho r; 1: all layers have the rank r.
        batches: how many batches of training rows are looked at.
        adjust_scaling: multiply alpha by the layer's rank / r.
    """

    def __init__(
        self,
        *,
        r: int,
        alpha: float,
        targets: str,
        rho: float = 2.0,
        batches: int = 10,
        adjust_scaling: bool = True,
    ) -> None:
        self.lora = Lora(r=r, alpha=alpha, targets=targets)
        if not 1 <= rho < float("inf"):
            raise bad_value("rho", rho, "a number >= 1")
        if batches < 1:
            raise bad_value("batches", batches, "a whole number >= 1")
        self.rho, self.batches, self.adjust_scaling = rho, batches, adjust_scaling

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`. Until rows were seen, this is LoRA."""
        return replace(self.lora.tune(loaded, draws), start=partial(self._start, loaded))

    def _start(self, loaded: Loaded, tuned: Tuned, batches: Iterable[StartBatch]) -> Tuned:
        model, r = loaded.model, self.lora.r
        layers = {name: x for name, x in model.named_modules() if isinstance(x, LoraLayer)}
        found = _components(layers, model, int(self.rho * r), islice(batches, self.batches))
        ranks = _ranks({name: each.explained_variance_ratio_ for name, each in found.items()}, r)
        beside = {id(x) for name, x in tuned.X.items() if ".lora_" not in name}
        take_out(model)
        inject(model, _with_ranks(self.lora.config(model), ranks, self.adjust_scaling))
        for name, layer in model.named_modules():
            if isinstance(layer, LoraLayer):
                A = layer.lora_A["default"].get_parameter("weight")
                B = layer.lora_B["default"].get_parameter("weight")
                dtype = new_dtype(layer)
                set_initial_values(A, found[name].components_[: ranks[name]].to(dtype))
                set_initial_values(B, torch.zeros(B.shape, dtype=dtype))
        X = freeze_rest(model, lambda name, x: ".lora_" in name or id(x) in beside)
        return replace(tuned, X=X)


def _with_ranks(config: LoraConfig, ranks: Mapping[str, int], adjust: bool) -> LoraConfig:
    """Return peft's config of a LoRA with these ranks."""
    config.target_modules = [name for name, rank in ranks.items() if rank]
    config.rank_pattern = {name: rank for name, rank in ranks.items() if rank not in (0, config.r)}
    if adjust:
        alpha: Any = config.lora_alpha
        config.alpha_pattern = {
            name: alpha * rank / config.r for name, rank in config.rank_pattern.items()
        }
    return config


def _ranks(explained: Mapping[str, Tensor], r: int) -> dict[str, int]:
    """Return each layer's rank: how many of its components are among the r N best of N layers."""
    names = [name for name, each in explained.items() for _ in each]
    shares = torch.cat([each.double().cpu() for each in explained.values()])
    chosen = shares.argsort(descending=True, stable=True)[: r * len(explained)].tolist()
    ranks = dict.fromkeys(explained, 0)
    for i in chosen:
        ranks[names[i]] += 1
    return ranks


def _components(
    layers: Mapping[str, LoraLayer], model: nn.Module, most: int, batches: Iterable[StartBatch]
) -> dict[str, IncrementalPCA]:
    """Return the principal components of each layer's inputs; layers share those of one input."""
    of: dict[str, str] = {}  # a layer -> the first layer with the same input
    found: dict[str, IncrementalPCA] = {}
    waiting: dict[str, Tensor] = {}
    for batch in batches:
        with torch.no_grad(), _inputs(layers) as inputs:
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        at = batch.attention_mask.flatten().bool()
        first: dict[int, str] = {}
        for name in layers:
            x = inputs[name]
            if first.setdefault(id(x), name) != name:
                of[name] = first[id(x)]
                continue
            of[name] = name
            count = min(most, x.shape[-1])
            pca: Any = found.setdefault(name, IncrementalPCA(n_components=count))
            # OPT's feed-forward layers get the rows one behind another, [B T, n].
            new = x.flatten(0, -2)[at].to(wide(x.dtype))
            waiting[name] = torch.cat([waiting[name], new]) if name in waiting else new
            if len(waiting[name]) >= count:  # it cannot decompose fewer
                pca.partial_fit(waiting.pop(name))
    for name, pca in found.items():
        if not hasattr(pca, "components_"):
            raise UserError(
                f"tuning.r: {name} would have up to {pca.n_components} components, and there are "
                f"only {len(waiting[name])} tokens of training rows; what to do: a smaller "
                "tuning.r or tuning.rho, or more tuning.batches or training rows"
            )
    return {name: found[of[name]] for name in layers}


@contextmanager
def _inputs(layers: Mapping[str, Any]) -> Iterator[dict[str, Tensor]]:
    """Collect what enters each layer in this context."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen[name] = args[0]

    hooks = [layer.register_forward_pre_hook(partial(keep, name)) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
