"""What enters low-rank modules, and the gradient of what comes out, also where a module is off.

With x [T, n] what enters a layer, G [T, m] the gradient of its output, and s B A the module beside
it, the gradients of the module and of the layer's weight W are

    dL/dB = s G^T (x A^T)        dL/dA = s (G B)^T x        dL/dW = G^T x

They follow from x and G whether the module is on or not. So modules that are off can be scored by
the gradients that training computes anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lozo_bench.tuning.low_rank_modules import LowRankModule

Modules = Sequence[LowRankModule]
# (module, x [T, n], G [T, m]) -> what is added up over the passes
Observe = Callable[[LowRankModule, Tensor, Tensor], Sequence[Tensor]]
Sums = dict[int, list[Tensor]]  # by the number of the module


@contextmanager
def observed(modules: Modules, observe: Observe) -> Iterator[Sums]:
    """Add up what ``observe`` returns for each module, over the backward passes in this context.

    It changes neither the model's function nor its gradients.

    Args:
        modules: the modules that are observed.
        observe: returns the tensors of one pass.

    Yields:
        The sums so far. A module that no backward pass came through is not in it.
    """
    sums: Sums = {}
    anchor = torch.zeros((), requires_grad=True)
    hooks = [
        layer_of(module).register_forward_hook(
            partial(_tap, module, anchor, partial(_add, sums, i, observe))
        )
        for i, module in enumerate(modules)
    ]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()


def layer_of(module: LowRankModule) -> nn.Module:
    """Return the layer with the module beside it, whose output is that of both."""
    layer = module.peft
    assert isinstance(layer, nn.Module)
    return layer


def gradients_of_module(module: LowRankModule, x: Tensor, G: Tensor) -> list[Tensor]:
    """Return dL/dA [r, n] and dL/dB [m, r]."""
    A, B, s = module.A.detach(), module.B.detach(), module.scaling
    return [s * (G @ B).T @ x, s * G.T @ (x @ A.T)]


Consume = Callable[[LowRankModule, Tensor, Tensor], None]


class _Tap(torch.autograd.Function):
    """Passes a layer's output on, and its gradient back, and shows both to ``consume``."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, anchor: Tensor, module: LowRankModule, consume: Consume
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.module, ctx.consume = module, consume
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        (G,) = gradients
        ctx.consume(ctx.module, x, G)
        return G, None, None, None, None


def _tap(
    module: LowRankModule,
    anchor: Tensor,
    consume: Consume,
    layer: nn.Module,
    args: tuple[Any, ...],
    y: Tensor,
) -> Tensor | None:
    """Tap a layer's output. ``anchor`` lets autograd reach layers that nothing trained precedes."""
    if not torch.is_grad_enabled():
        return None
    (x,) = args
    if y.ndim == 0:  # a carrier that is off returns a single zero
        y = y.expand(*x.shape[:-1], len(module.B))
    tapped: Tensor = _Tap.apply(y, x.detach(), anchor, module, consume)  # type: ignore[no-untyped-call]
    return tapped


@torch.no_grad()
def _add(sums: Sums, i: int, observe: Observe, module: LowRankModule, x: Tensor, G: Tensor) -> None:
    dtype = module.A.dtype
    found = observe(module, x.flatten(0, -2).to(dtype), G.flatten(0, -2).to(dtype))
    if i in sums:
        torch._foreach_add_(sums[i], list(found))
    else:
        sums[i] = list(found)
