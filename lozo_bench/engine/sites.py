"""Find where a model holds its weights, and replace them there temporarily."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from lozo_bench.errors import UserError

Slot = tuple[dict[str, nn.Parameter | None], str]  # a module's parameters, a key in them


class Sites:
    """The modules of a model that hold each weight; a tied weight is held by several.

    Args:
        model: the model.
        X: parameters of the model, by name.

    Raises:
        UserError: a tensor of X is not a parameter of the model.
    """

    def __init__(self, model: nn.Module, X: Mapping[str, Tensor]) -> None:
        names = {id(x): name for name, x in X.items()}
        self._slots: dict[str, list[Slot]] = {name: [] for name in X}
        for module in model.modules():
            for key, parameter in module._parameters.items():
                if id(parameter) in names:
                    self._slots[names[id(parameter)]].append((module._parameters, key))
        if missing := [name for name, slots in self._slots.items() if not slots]:
            raise UserError(
                f"the model has no parameter {missing[0]!r}: the engine's weights must be the "
                "model's own parameters"
            )

    @contextmanager
    def holding(self, others: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside this context, the tensors in ``others`` replace the weights of the same names."""
        originals = [(slot, slot[0][slot[1]]) for name in others for slot in self._slots[name]]
        try:
            for name, other in others.items():
                for parameters, key in self._slots[name]:
                    parameters[key] = other  # type: ignore[assignment]
            yield
        finally:
            for (parameters, key), weight in originals:
                parameters[key] = weight
