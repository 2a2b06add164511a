"""The memory and the operations of a forward pass, found by running the model on the meta device.

Nothing is computed and no memory is taken: a mode sees every operation and when its results are
freed. What a pass holds grows linearly with its tokens, so one trace tells all sizes.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lozo_bench.models.answers import backbone
from lozo_bench.models.capabilities import without_cache
from lozo_bench.models.load import Loaded

_ROWS, _LENGTH = 4, 32
_VIEWS = {
    *("view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "detach"),
    *("unsqueeze", "squeeze", "alias", "as_strided", "split", "unbind", "empty", "empty_like"),
}


@dataclass(frozen=True, slots=True)
class Trace:
    """What a pass through a model without its head does.

    Args:
        peak: bytes of activations at their peak, for each token.
        kept: bytes of them that are kept for the backward pass, for each token.
        operations: how many operations a pass has.
    """

    peak: float
    kept: float
    operations: int


def trace(loaded: Loaded, gradient: bool, dropout: bool) -> Trace:
    """Run the model once on the meta device, keeping what a gradient needs if there is one."""
    model, tokens = loaded.model, _ROWS * _LENGTH
    ids = torch.zeros(_ROWS, _LENGTH, dtype=torch.int64, device="meta")
    live = _Live()
    body: Any = backbone(model)
    with _training(body, dropout), nullcontext() if gradient else torch.no_grad():
        with _Attention(), live:
            out = body(input_ids=ids, **without_cache(body))
            live.count_now()
        del out
    return Trace(live.peak / tokens, live.at_end / tokens if gradient else 0.0, live.operations)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that exist, and the operations that make them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.at_end = self.operations = 0
        self._known: set[int] = set()

    def count_now(self) -> None:
        """Remember what exists now, at the end of the pass."""
        self.at_end = self.now

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count what it makes."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1  # a model asks whether no rows are packed
        out = func(*args, **(kwargs or {}))
        inputs = {
            x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)
        }
        if func.__name__.partition(".")[0] not in _VIEWS:
            self.operations += 1
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._hold(x.untyped_storage(), inputs)
        return out

    def _hold(self, storage: torch.UntypedStorage, inputs: set[int]) -> None:
        key = storage._cdata
        if key in inputs or key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class _Attention(TorchFunctionMode):
    """Runs attention as one operation that keeps queries, keys, values and its result."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace attention; everything else stays."""
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return _OneOperation.apply(*args[:3])  # type: ignore[no-untyped-call]


class _OneOperation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Keep what flash attention keeps."""
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Never called: only the forward pass is traced."""
        raise NotImplementedError


@contextmanager
def _training(model: nn.Module, dropout: bool) -> Iterator[None]:
    model.train(dropout)
    try:
        yield
    finally:
        model.train(mode=False)
