"""Logs the singular values of gradients, which fall fast: gradients have nearly a low rank.

It is the observation that LOZO starts from (arXiv 2410.07698, Figure 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Event

EVENT = "singular_values"
_LOGGED = 512  # the largest of them


@dataclass(frozen=True, slots=True)
class Spectra:
    """Of which gradients the singular values are logged, and how often.

    Args:
        every: the steps from one time to the next; 0: never.
        of: a regular expression that the name of a weight contains.

    Raises:
        BadValueError: ``every`` is negative, or ``of`` is not a regular expression.
    """

    every: int
    of: str

    def __post_init__(self) -> None:
        if self.every < 0:
            raise bad_value("spectra_every", self.every, "a whole number >= 0")
        try:
            re.compile(self.of)
        except re.error as error:
            raise bad_value("spectra_of", self.of, f"a regular expression ({error})") from error

    def events(self, X: Mapping[str, Tensor], steps_before: int) -> list[Event]:
        """Return an event for each matrix, if this step's gradients are to be logged.

        Args:
            X: the weights, with their gradients.
            steps_before: the number of steps made so far.

        Raises:
            BadValueError: no matrix with a gradient has such a name.
        """
        if not self.every or steps_before % self.every:
            return []
        chosen = {
            name: x.grad
            for name, x in X.items()
            if x.ndim == 2 and x.grad is not None and re.search(self.of, name)
        }
        if not chosen:
            raise bad_value("spectra_of", self.of, "a part of the name of a matrix that is trained")
        return [
            Event(EVENT, {"weight": name, "values": _text(singular_values(gradient))})
            for name, gradient in chosen.items()
        ]


def singular_values(gradient: Tensor) -> Tensor:
    """Return the largest singular values of a matrix [m, n], in float32, the largest one first."""
    values: Tensor = torch.linalg.svdvals(gradient.detach().float())
    return values[:_LOGGED]


def _text(values: Tensor) -> str:
    return " ".join(f"{value:.4g}" for value in values.tolist())
