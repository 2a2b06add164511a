"""The low-rank modules of a model, as one list: LoRA beside layers, and LoRA-adapted shortcuts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from lozo_bench.tuning.carriers import Carrier

_ADAPTER = "default"  # peft's name of the only adapter
OUTSIDE = -1


@dataclass(frozen=True, eq=False)
class LowRankModule:
    """A low-rank module s B A beside a layer, with s = alpha / r.

    Attributes:
        name: the layer beside which it stands, such as model.decoder.layers.0.self_attn.q_proj.
        group: the projection, which all blocks have: q_proj, v_proj, ..., s_res1, s_in.
        layer: the number of the block, from 0; -1 outside the blocks.
        is_shortcut: whether it adapts a shortcut instead of a layer of the model.
        peft: peft's layer.
    """

    name: str
    group: str
    layer: int
    is_shortcut: bool
    peft: LoraLinear

    @property
    def A(self) -> nn.Parameter:  # noqa: N802
        """The factor that is applied first, [r, n]."""
        return self.peft.lora_A[_ADAPTER].get_parameter("weight")

    @property
    def B(self) -> nn.Parameter:  # noqa: N802
        """The factor that is applied second, [m, r]."""
        return self.peft.lora_B[_ADAPTER].get_parameter("weight")

    @property
    def scaling(self) -> float:
        """The factor s of B A."""
        return float(self.peft.scaling[_ADAPTER])

    @property
    def rank(self) -> int:
        """The rank r."""
        return len(self.A)

    @property
    def size(self) -> int:
        """How many parameters A and B have together."""
        return self.A.numel() + self.B.numel()

    @property
    def names(self) -> tuple[str, str]:
        """The names of A and B among the model's parameters."""
        return f"{self.name}.lora_A.{_ADAPTER}.weight", f"{self.name}.lora_B.{_ADAPTER}.weight"


def low_rank_modules(model: nn.Module) -> list[LowRankModule]:
    """Return the low-rank modules that peft put into a model, in the model's order."""
    layers = {name: x for name, x in model.named_modules() if isinstance(x, LoraLinear)}
    insides = [_inside(name) for name in layers]
    return [
        _module(name, layer, _shortest(inside, set(insides)))
        for (name, layer), inside in zip(layers.items(), insides, strict=True)
    ]


def _module(name: str, layer: LoraLinear, group: str) -> LowRankModule:
    is_shortcut = isinstance(layer.get_base_layer(), Carrier)
    return LowRankModule(name, group, _block(name), is_shortcut, layer)


def _block(name: str) -> int:
    """Return the first number in a module's name, which is that of its block."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), OUTSIDE)


def _inside(name: str) -> str:
    """Return a module's name inside its block."""
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[numbers[0] + 1 :]) if numbers else name


def _shortest(inside: str, others: set[str]) -> str:
    """Return the shortest end of a name that no other name has, such as ``q_proj``.

    RoBERTa's ``attention.output.dense`` and ``output.dense`` both end in ``output.dense``. They
    keep their whole names.
    """
    for end in _ends(inside):
        if not any(other != inside and f".{other}".endswith(f".{end}") for other in others):
            return end
    return inside


def _ends(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[i:]) for i in reversed(range(len(parts))))
