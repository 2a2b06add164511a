"""The base of the first-order methods: one forward and one backward pass a step, torch's update.

Unless ``dropout`` is false, these passes use the dropout of the model's config, as in the published
fine-tuning rows, and the loss that a step reports is the loss with dropout. Answer options that
share one prompt in a pass share the dropout of that prompt.

In float16 passes, small gradients would underflow to 0. The loss is therefore multiplied by a scale
before the backward pass, and gradients are divided by it before they are used (Micikevicius et al.,
arXiv 1710.03740). The scale follows torch's GradScaler: it is halved after a gradient that
overflows, whose step is skipped, and doubled after 2000 steps without an overflow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.shown import every
from lozo_bench.optimizers.base import (
    Engine,
    Event,
    Needs,
    Report,
    Score,
    check_not_negative,
    check_positive,
)

Autocast = Literal["bf16", "fp16"] | None

_FIRST_SCALE = 2.0**16
_STEPS_TO_DOUBLE = 2000


class FirstOrder:
    """First-order fine-tuning; a subclass chooses the torch optimizer that updates the weights.

    Args:
        engine: holds the weights X.
        torch_optimizer: updates the weights.
        lr: learning rate.
        max_grad_norm: gradients whose norm exceeds this are clipped to it; None: no clipping.
        autocast: the precision of the model's passes; None: that of the weights.
        dropout: whether the model uses the dropout of its config in the differentiated passes.
    """

    needs = Needs(gradient=True, replayable=False)

    def __init__(
        self,
        engine: Engine,
        torch_optimizer: torch.optim.Optimizer,
        *,
        lr: float,
        max_grad_norm: float | None,
        autocast: Autocast,
        dropout: bool,
    ) -> None:
        if max_grad_norm is not None:
            check_positive("max_grad_norm", max_grad_norm)
        self.lr = lr
        self.needs = replace(FirstOrder.needs, dropout=dropout)
        self.max_grad_norm = math.inf if max_grad_norm is None else max_grad_norm
        self.engine = engine
        self.moments = torch_optimizer
        self.scaled = autocast == "fp16"
        self.loss_scale = _FIRST_SCALE if self.scaled else 1.0
        self.steps_at_scale = 0

    def step(self, score: Score) -> Report:
        """Make one step: one forward pass, one backward pass and one update.

        Raises:
            NonFiniteLossError: the loss is not finite, or the gradient is not finite and the loss
                scale cannot be halved any further.
        """
        loss = score.differentiate(self.loss_scale)
        gradients = [x.grad for x in self.weights if x.grad is not None]
        if self.scaled:
            torch._foreach_div_(gradients, self.loss_scale)
        events = self._events()
        norm = self._clip(gradients)
        scalars = {"loss_scale": self.loss_scale} if self.scaled else {}
        if math.isfinite(norm):
            scalars["grad_norm"] = norm
            self._update()
        elif self.loss_scale > 1:
            self.loss_scale, self.steps_at_scale = self.loss_scale / 2, 0
        else:
            raise NonFiniteLossError(f"the norm of this step's gradient is {norm}")
        return Report(loss, forwards=1, backwards=1, scalars=scalars, events=events)

    @property
    def weights(self) -> list[Tensor]:
        """The weights that move."""
        return list(self.engine.X.values())

    def _events(self) -> Sequence[Event]:
        """Return what to log of the gradients before they are clipped."""
        return ()

    def _clip(self, gradients: Sequence[Tensor]) -> float:
        """Return the norm of all gradients together; clip them if it is finite and too large."""
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.max_grad_norm < norm < math.inf:
            torch.nn.utils.clip_grads_with_norm_(self.weights, self.max_grad_norm, norm)
        return float(norm)

    def _update(self) -> None:
        for group in self.moments.param_groups:
            group["lr"] = self.lr
        with unchanged(every(self.engine.X), self.engine.extras.off_parts(), self.moments):
            self.moments.step()
        if not self.scaled:
            return
        self.steps_at_scale += 1
        if self.steps_at_scale == _STEPS_TO_DOUBLE:
            self.loss_scale, self.steps_at_scale = self.loss_scale * 2, 0


def parameter_groups(engine: Engine, weight_decay: float) -> list[dict[str, Any]]:
    """Return the weights as torch's parameter groups: matrices decay, vectors do not.

    Raises:
        BadValueError: ``weight_decay`` is negative.
    """
    check_not_negative("weight_decay", weight_decay)
    weights = list(every(engine.X).values())
    return [
        {"params": [x for x in weights if x.ndim >= 2], "weight_decay": weight_decay},
        {"params": [x for x in weights if x.ndim < 2], "weight_decay": 0.0},
    ]


@contextmanager
def unchanged(
    X: Mapping[str, Tensor],
    parts: Mapping[str, tuple[slice, ...]],
    moments: torch.optim.Optimizer,
) -> Iterator[None]:
    """Return a context after which parts of weights, and the moments of them, are as before.

    torch's optimizers move whole weights: without a gradient, components that are off would still
    decay and follow their moments.

    Args:
        X: all weights by name.
        parts: which part of a weight stays.
        moments: the optimizer that moves the others.
    """
    kept = [
        (whole, part, whole[part].clone())
        for name, part in parts.items()
        for whole in (X[name].detach(), *_moments_of(X[name], moments))
    ]
    yield
    for whole, part, before in kept:
        whole[part] = before


def _moments_of(x: Tensor, moments: torch.optim.Optimizer) -> list[Tensor]:
    state = moments.state.get(x, {})
    return [m for m in state.values() if isinstance(m, Tensor) and m.shape == x.shape]
