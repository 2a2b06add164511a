"""Find weights of a checkpoint that belong inside the model but have no place there.

transformers only logs weights that a checkpoint has and the model does not. Most are harmless:
another head, a pooler, a buffer of an earlier version. Others say that config.json describes
another model than the one that was trained: one with fewer layers, without biases or without a
norm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedModel

_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.)")


def unused_weights(model: PreTrainedModel, unexpected: Iterable[str]) -> list[str]:
    """Return those ``unexpected`` names of weights that belong inside ``model``, sorted.

    A weight belongs inside if the model has the same weight in another layer, if it is a weight or
    bias of a module that the model has, or if it is a weight or bias of a module that the model
    lacks inside one of its layers or directly beside its list of layers.

    Args:
        model: the loaded model.
        unexpected: the names that ``from_pretrained`` reported as ``unexpected_keys``.
    """
    anatomy = _Anatomy.of(model)
    return sorted(name for name in unexpected if anatomy.has_place_for(name))


@dataclass(frozen=True)
class _Anatomy:
    """The names inside a model, with ``*`` for each index of a layer.

    Attributes:
        prefix: the name of the part without heads; a checkpoint of that part alone omits it.
        weights: the parameters.
        owners: the modules that have parameters of their own.
        modules: all modules.
        layers: the elements of the lists of layers, without those of heads.
    """

    prefix: str
    weights: set[str]
    owners: set[str]
    modules: set[str]
    layers: set[str]

    @classmethod
    def of(cls, model: PreTrainedModel) -> _Anatomy:
        names = (name for name, _ in model.named_parameters(remove_duplicate=False))
        weights = {_without_indices(name) for name in names}
        modules = {_without_indices(name) for name, _ in model.named_modules()}
        prefix = model.base_model_prefix
        inside = (name for name in modules if name.startswith(f"{prefix}."))
        layers = {name for name in inside if name.endswith("*")}
        return cls(prefix, weights, {_owner(name) for name in weights}, modules, layers)

    def has_place_for(self, name: str) -> bool:
        """Return whether a weight called ``name`` belongs inside the model."""
        name = _without_indices(name)
        return self._beside_layers(name) or any(
            spelling in self.weights or self._of_known_module(spelling) or self._in_layer(spelling)
            for spelling in (name, f"{self.prefix}.{name}", name.removeprefix(f"{self.prefix}."))
        )

    def _of_known_module(self, name: str) -> bool:
        return _is_weight(name) and _owner(name) in self.owners

    def _in_layer(self, name: str) -> bool:
        # Earlier versions of GPT-2 and its relatives saved their causal mask as `attn.bias`.
        is_buffer = _owner(name) in self.modules
        parts = name.split(".")
        around = {".".join(parts[:i]) for i in range(1, len(parts))}
        return _is_weight(name) and not is_buffer and bool(around & self.layers)

    def _beside_layers(self, name: str) -> bool:
        parent = _owner(_owner(name))
        lists = {_owner(layer) for layer in self.layers}
        is_known = _owner(name) in self.modules
        return _is_weight(name) and not is_known and parent in {_owner(x) for x in lists}


def _is_weight(name: str) -> bool:
    """Return whether this is what modules call their parameters; most buffers have other names."""
    return name.rpartition(".")[2] in ("weight", "bias")


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _without_indices(name: str) -> str:
    return _INDEX.sub("*", name)
