"""Where in a model the weights sit, so that something else can sit there for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from lozo_bench.errors import UserError

Place = tuple[dict[str, nn.Parameter | None], str]


class Sites:
    """The places of each weight in a model: two or more for tied ones.

    Args:
        model: the model.
        X: parameters of the model, by name.

    Raises:
        UserError: a tensor of X is no parameter of the model.
    """

    def __init__(self, model: nn.Module, X: Mapping[str, Tensor]) -> None:
        names = {id(x): name for name, x in X.items()}
        self._places: dict[str, list[Place]] = {name: [] for name in X}
        for module in model.modules():
            for key, parameter in module._parameters.items():
                if id(parameter) in names:
                    self._places[names[id(parameter)]].append((module._parameters, key))
        if missing := [name for name, places in self._places.items() if not places]:
            raise UserError(f"the model has no parameter {missing[0]!r} to find candidates for")

    @contextmanager
    def holding(self, others: Mapping[str, Tensor]) -> Iterator[None]:
        """While this is open, ``others`` stand where the weights of their names do."""
        taken = [(at, at[0][at[1]]) for name in others for at in self._places[name]]
        try:
            for name, other in others.items():
                for parameters, key in self._places[name]:
                    parameters[key] = other  # type: ignore[assignment]
            yield
        finally:
            for (parameters, key), weight in taken:
                parameters[key] = weight
