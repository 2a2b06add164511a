"""The published schemes as a baseline for timing: the same operations and the same temporaries.

They restate the operations of the code that accompanies LOZO (arXiv 2410.07698) and MeZO (arXiv
2305.17333), counted there with a TorchDispatchMode. A step is three passes over the weights with a
forward pass between them,

    p <- p + s (U V^T) eps      s = +1, -2, +1        8 moves of each weight: mm, mul, mul, add

and the update, which draws U again from the same seed,

    p <- p - lr (g (U V^T) + wd p)                    13 moves; wd p is computed even if wd = 0

Each product and sum creates a new tensor, and so does ``param.data`` in every pass. MeZO has a full
z in place of U V^T, drawn again in each of the four passes. Both schemes use such a z for vectors.

U and z come from torch's global generator, which ``torch.manual_seed`` rewinds before each pass.
The caller must save and restore the state of the generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lozo_bench.engine.protocol import MicroBatch


class Published:
    """A published scheme; each call makes one step.

    Args:
        X: the weights, by name.
        parts: the micro-batches of the batch.
        rank: columns of U and V; None selects MeZO.
        nu: number of steps for which V is kept.
        lr: learning rate.
        eps: scale of the perturbation.
        memory: where `move_back` notes the memory of the weights, for all schemes of a model.
    """

    def __init__(
        self,
        X: Mapping[str, Tensor],
        parts: Sequence[MicroBatch],
        rank: int | None,
        nu: int,
        lr: float,
        eps: float,
        memory: dict[str, Tensor] | None = None,
    ) -> None:
        self.X, self.parts, self.rank, self.nu = X, parts, rank, nu
        self.lr, self.eps, self.weight_decay = lr, eps, 0.0
        self.V: dict[str, Tensor] = {}
        self.z: Tensor | None = None
        self.t = 0
        self._memory = {} if memory is None else memory

    @torch.no_grad()
    def __call__(self) -> None:
        """Make a step: two forward passes and four passes over the weights."""
        if self.rank is not None and self.t % self.nu == 0:
            self._redraw(self.rank)
        self._perturb(+1)
        loss_plus = self._loss()
        self._perturb(-2)
        loss_minus = self._loss()
        self._perturb(+1)
        self._update((loss_plus - loss_minus) / (2 * self.eps))
        self.t += 1

    @torch.no_grad()
    def move_back(self) -> None:
        """Move the weights to where they were at the first call; this is not part of a step.

        The scheme gives every weight new memory in each pass. Engines that are timed beside it hold
        on to the old memory, so there would soon be several copies of the weights.
        """
        for name, param in self.X.items():
            param.data = self._memory.setdefault(name, param.data).copy_(param.data)

    def _perturb(self, scale: float) -> None:
        torch.manual_seed(self.t)
        for name, param in self.X.items():
            param.data = param.data + scale * self._direction(name, param) * self.eps
        self.z = None

    def _update(self, g: float) -> None:
        torch.manual_seed(self.t)
        for name, param in self.X.items():
            if param.ndim >= 2:
                param.data = param.data - self.lr * (
                    g * self._direction(name, param) + self.weight_decay * param.data
                )
            else:
                param.data = param.data - self.lr * (g * self._direction(name, param))
        self.z = None

    def _direction(self, name: str, param: Tensor) -> Tensor:
        like: dict[str, Any] = {"device": param.device, "dtype": param.dtype}
        if param.ndim < 2 or self.rank is None:
            # A local variable in the published code: it lives until the next z is drawn.
            self.z = torch.normal(0.0, 1.0, size=param.shape, **like)
            return self.z
        u = torch.randn(param.shape[0], self.rank, **like)
        return u @ self.V[name].t()

    def _redraw(self, rank: int) -> None:
        torch.manual_seed(-1 - self.t)
        for name, param in self.X.items():
            if param.ndim >= 2:
                shape = (param.shape[1], rank)
                self.V[name] = torch.randn(shape, device=param.device, dtype=param.dtype)

    def _loss(self) -> float:
        with torch.inference_mode():
            return torch.cat([part.losses(1)[0] for part in self.parts]).mean().item()
