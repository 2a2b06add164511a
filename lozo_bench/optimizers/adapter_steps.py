"""First-order steps of an adapter whose gradients are taken apart from its update."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.protocol import Engine
from lozo_bench.engine.score import Score
from lozo_bench.errors import bad_value

Gradients = dict[str, Tensor]


@dataclass(frozen=True)
class Rates:
    """The learning rates of theta and of two copies of an adapter, which one schedule scales.

    Args:
        given_theta: of theta, as it was given.
        given_p: of p.
        given_s: of s.
    """

    given_theta: float
    given_p: float
    given_s: float

    @property
    def first(self) -> float:
        """The rate that the run's schedule scales, as the optimizer's ``lr``: one that is not 0."""
        return self.given_theta or self.given_p or self.given_s

    def theta(self, lr: float) -> float:
        """Return theta's rate now, when `first` has become ``lr``."""
        return self.given_theta * self._factor(lr)

    def p(self, lr: float) -> float:
        """Return p's rate now."""
        return self.given_p * self._factor(lr)

    def s(self, lr: float) -> float:
        """Return s's rate now."""
        return self.given_s * self._factor(lr)

    def _factor(self, lr: float) -> float:
        return lr / self.first if self.first else 1.0


def adam_over(parameters: Mapping[str, Tensor]) -> torch.optim.Adam:
    """Return Adam without weight decay over an adapter; its learning rate is set by `adam_step`."""
    # torch refuses an optimizer without parameters, as one made without a model would be.
    return torch.optim.Adam([{"params": list(parameters.values())}])


def gradients_of(
    score: Score, engine: Engine, parameters: Mapping[str, Tensor]
) -> tuple[float, Gradients]:
    """Return the loss of a batch and its gradient in an adapter: one forward, one backward pass.

    Raises:
        NonFiniteLossError: the loss or the norm of the gradient is NaN or infinite.
    """
    for x in parameters.values():  # a step that was skipped may have left some
        x.grad = None
    with engine.applied():
        loss = score.differentiate()
    found = {name: x.grad for name, x in parameters.items() if x.grad is not None}
    for x in parameters.values():
        x.grad = None
    finite_norm(found)
    return loss, found


def finite_norm(tensors: Mapping[str, Tensor], what: str = "gradient") -> Tensor:
    """Return the norm of a gradient, or of something else that an error would name ``what``.

    Raises:
        NonFiniteLossError: it is NaN or infinite.
    """
    norm = torch.nn.utils.get_total_norm(list(tensors.values()))
    if not norm.isfinite():
        raise NonFiniteLossError(f"the norm of this step's {what} is {float(norm)}")
    return norm


def adam_step(
    adam: torch.optim.Adam,
    parameters: Mapping[str, Tensor],
    gradients: Gradients,
    lr: float,
    max_grad_norm: float | None = None,
) -> float:
    """Update an adapter by a gradient, clipped to a norm if one is given; return the norm.

    Raises:
        NonFiniteLossError: the gradient is not finite; nothing has changed.
    """
    norm = finite_norm(gradients)
    for name, gradient in gradients.items():
        parameters[name].grad = gradient
    if norm > (math.inf if max_grad_norm is None else max_grad_norm):
        assert max_grad_norm is not None
        torch.nn.utils.clip_grads_with_norm_(list(parameters.values()), max_grad_norm, norm)
    for group in adam.param_groups:
        group["lr"] = lr
    adam.step()
    for x in parameters.values():
        x.grad = None
    return float(norm)


def dot(one: Gradients, other: Gradients) -> float:
    """Return the inner product of two gradients."""
    return math.fsum(float((x.double() * other[name].double()).sum()) for name, x in one.items())


def has_dropout(model: nn.Module | None) -> bool:
    """Return whether the config of a model names a dropout rate above 0."""
    config = getattr(model, "config", None)
    rates = [rate for name, rate in vars(config).items() if "drop" in name] if config else []
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)


def check_no_fp16(autocast: str | None) -> None:
    """Raise BadValueError for float16 passes, in which gradients would underflow to 0."""
    if autocast == "fp16":
        raise bad_value("model.autocast", "fp16", "null or bf16 with this optimizer")
