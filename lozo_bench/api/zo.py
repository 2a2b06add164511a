"""Zeroth-order steps in a training loop of your own, on any PyTorch model and any batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import Engine, MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import is_half
from lozo_bench.errors import UserError, did_you_mean
from lozo_bench.optimizers.base import Needs, Optimizer
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.randomness.draws import Draws

# Columns of low-rank updates that stay beside weights in half precision before they are added.
_MAX_RANK = 32
_LOZO = {"lr": 1e-6, "eps": 1e-3, "rank": 2, "nu": 50}


class OptimizerClass(Protocol):
    """A class of `lozo_bench.optimizers`, or one that is built in the same way."""

    needs: Needs

    def __call__(self, *parts: Any, **options: Any) -> Optimizer:
        """Return an optimizer of (engine, draws) with these options."""
        ...


class ZO:
    """Moves the weights of a model along directions along which a loss falls; no backpropagation.

    ::

        zo = ZO(model, lr=1e-5)
        for batch in batches:
            loss = zo.step(lambda: model(**batch).loss)
        zo.flush()
        model.save_pretrained("my_model")

    Args:
        model: any model in evaluation mode: with dropout, the two losses of a step would differ by
            chance. Its parameters that require a gradient are trained, those of a peft adapter too.
        optimizer: a class of `lozo_bench.optimizers`, such as `Mezo`; LOZO by default. It must not
            need gradients, hidden states or streams of rows.
        seed: of the random directions.
        options: of the optimizer's class. For LOZO they are lr=1e-6, eps=1e-3, rank=2 and nu=50 if
            they are not given.

    Raises:
        UserError: the model is in training mode or has nothing to train; an option is unknown or
            out of range; the optimizer needs what a closure cannot give.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerClass = Lozo,
        *,
        seed: int = 0,
        **options: Any,
    ) -> None:
        X: dict[str, Tensor] = {name: x for name, x in model.named_parameters() if x.requires_grad}
        if not X:
            raise UserError("ZO: no parameter of the model requires a gradient; nothing is trained")
        options = (_LOZO if optimizer is Lozo else {}) | options
        draws = Draws(seed)
        _check_needs(optimizer.needs)
        _check_options(optimizer, options)
        needs = optimizer(InPlace({}), draws, **options).needs  # it may depend on the options
        self.model = model
        self.engine = _engine(model, X, needs, draws)
        self.optimizer = optimizer(self.engine, draws, **options)

    def step(self, loss: Callable[[], Tensor]) -> float:
        """Make one step on one batch, and return the loss before it.

        Args:
            loss: computes the loss with the model, a scalar or one number for each example. It is
                called for each candidate, two times for LOZO and MeZO, and must see the same batch
                each time.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite; the weights have not changed.
            UserError: the model is in training mode, or the loss is not a tensor of numbers.
        """
        if self.model.training:
            raise UserError("ZO: the model is in training mode; call model.eval() before a step")
        with torch.no_grad():
            batch = MicroBatch(size=1, tokens=0, losses=lambda copies: _one(loss(), copies))
            return self.optimizer.step(Score(self.engine, [batch])).loss

    def applied(self) -> AbstractContextManager[None]:
        """Return a context in which the model computes with all steps so far, to evaluate it."""
        return self.engine.applied()

    def flush(self) -> None:
        """Add what is not yet in the weights to them, to save or to use the model."""
        self.engine.flush()


def _engine(model: nn.Module, X: dict[str, Tensor], needs: Needs, draws: Draws) -> Engine:
    """Return the engine: fused for low-rank directions of most weights, as in a run."""
    half = any(is_half(x.dtype) for x in X.values())
    moving, all_of = (sum(x.numel() for x in some) for some in (X.values(), model.parameters()))
    if needs.directions != "low_rank" or (2 * moving < all_of and not half):
        if model.training:
            raise UserError("ZO: the model is in training mode; call model.eval() first")
        return InPlace(X, model)
    # One candidate a pass, because a closure cannot repeat its batch.
    folder = Folder("stochastic", draws)
    return Fused(model, X, folder, _MAX_RANK if half else 0, per_forward=1, graphs=False)


def _check_options(optimizer: OptimizerClass, options: dict[str, Any]) -> None:
    """Refuse options that the optimizer does not take, or without those that it must have."""
    takes = dict(list(inspect.signature(optimizer).parameters.items())[2:])
    for name in options:
        if name not in takes:
            guess = did_you_mean(name, takes)
            raise UserError(f"ZO: there is no option {name!r}{guess}; it takes {', '.join(takes)}")
    for name, parameter in takes.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            raise UserError(f"ZO: the option {name!r} is missing; give {name}=...")


def _check_needs(needs: Needs) -> None:
    if needs.gradient or needs.features or needs.streams or needs.two_level:
        raise UserError(
            "ZO: this optimizer needs gradients, hidden states or several batches a step; allowed: "
            "one that only asks for losses, such as Lozo or Mezo"
        )


def _one(loss: Tensor, copies: int) -> Tensor:
    """Return the batch's loss as the engine expects it: [1, 1]."""
    if copies != 1:
        raise UserError("ZO: this optimizer scores several candidates in one pass")
    if not isinstance(loss, Tensor) or not loss.is_floating_point():
        raise UserError(f"ZO: the loss must be a tensor of floating-point numbers, not {loss!r}")
    return loss.mean().view(1, 1)
