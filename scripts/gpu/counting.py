"""Counts what code would make a GPU do, with meta tensors in place of tensors on the GPU.

A meta tensor has a shape and a dtype but no data, so a model of any size is counted in seconds.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[2]
_OURS = (f"{ROOT / 'lozo_bench'}/", f"{ROOT / 'scripts' / 'bench'}/")
# Operations that return a view of their input, and those that only allocate memory.
_VIEWS = {
    *("view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select"),
    *("unsqueeze", "squeeze", "detach", "alias", "as_strided", "split", "split_with_sizes"),
    *("unbind", "reshape", "_reshape_alias", "lift_fresh", "diagonal", "unfold", "chunk"),
    *("is_same_size", "set_", "resize_"),
}
_ALLOCATIONS = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}
# What decides whether a Triton kernel is used, and the kernels.
_CONDITIONS = (
    "lozo_bench.randomness.draws._has_kernels",
    "lozo_bench.engine.versions.has_norm_kernel",
    "lozo_bench.engine.fold.has_fold_kernel",
    "lozo_bench.engine.gaussian.run_on",
)
_KERNELS = (
    "lozo_bench.randomness.kernels._draw_span",
    "lozo_bench.randomness.kernels._draw_spans",
    "lozo_bench.engine.norm_kernels._norm",
    "lozo_bench.engine.fold_kernel._fold",
    "lozo_bench.engine.kernels._move_by_normals",
)
_READS = {"_local_scalar_dense", "is_nonzero", "item"}  # a tensor's value as a Python number
_COPIES = {"copy_", "_to_copy"}
_UNKNOWN = 0.25  # stands for any value that is read from the GPU
_NOT_A_TRANSFER = object()


@dataclass
class Counts:
    """What the GPU had to do. Counters have keys of the form ``operation @ places in the code``.

    Args:
        launches: kernels; attention is counted separately.
        moved: bytes that these kernels read and write.
        copies: copies from the host to the GPU.
        copied: bytes of these copies.
        synchronizations: reads of a result, for which the host waits until the GPU has finished.
        mixed: operations on a GPU tensor and a CPU tensor, which would fail on a GPU.
    """

    launches: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    copied: int = 0
    synchronizations: Counter[str] = field(default_factory=Counter)
    mixed: Counter[str] = field(default_factory=Counter)


class LaunchCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts all operations on meta tensors in this context, in ``counts``.

    Args:
        distinct: how many distinct elements `torch.unique` finds, which meta tensors do not tell.
    """

    def __init__(self, distinct: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.distinct, self.counts = distinct, Counts()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count the operation, and run it unless it needs the data of a meta tensor."""
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        if _is_composite(func, name):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        inputs = list(_tensors((args, kwargs)))
        result = self._transfer(name, inputs, kwargs)
        if result is not _NOT_A_TRANSFER:
            return result
        self._count_mixed(name, inputs)
        result = func(*args, **kwargs)
        self._count_launch(name, inputs, list(_tensors(result)))
        return result

    def _transfer(self, name: str, inputs: list[Tensor], kwargs: Mapping[str, Any]) -> Any:
        """Count an operation that copies between host and GPU, or needs a value on the host.

        Returns:
            Its result, or `_NOT_A_TRANSFER` if the operation must still run.
        """
        on_gpu = [x for x in inputs if x.is_meta]
        if name == "_to_copy" and kwargs.get("device") is not None:
            return self._to_copy(inputs, torch.device(kwargs["device"]), kwargs.get("dtype"))
        if name == "copy_" and inputs[0].is_meta != inputs[1].is_meta:
            if inputs[0].is_meta:
                self._count_copy(inputs[1])
            else:
                self._count_synchronization("D2H copy_")
            return inputs[0]
        if not on_gpu:
            return _NOT_A_TRANSFER
        x = on_gpu[0]
        if name in _READS:
            self._count_synchronization(name)
            if x.is_floating_point():
                return _UNKNOWN
            return True if x.dtype is torch.bool else 1
        if name == "_unique2":
            self._count_synchronization(name)
            n = min(x.numel(), self.distinct)
            return x.new_empty(n), x.new_empty(x.shape), x.new_empty(0)
        if name in ("unique_dim", "nonzero"):
            self._count_synchronization(name)
            return x.new_empty((x.numel(), x.ndim), dtype=torch.int64)
        if name == "equal":
            self._count_synchronization(name)
            return True
        return _NOT_A_TRANSFER

    def _to_copy(
        self, inputs: list[Tensor], device: torch.device, dtype: torch.dtype | None
    ) -> Any:
        x = inputs[0]
        if x.is_meta and device.type == "cpu":
            self._count_synchronization(f"D2H {x.nbytes} B")
            copy = torch.zeros(x.shape, dtype=dtype or x.dtype)
            return copy + (_UNKNOWN if copy.is_floating_point() else 0)
        if not x.is_meta and device.type == "meta":
            self._count_copy(x)
        return _NOT_A_TRANSFER

    def _count_copy(self, x: Tensor) -> None:
        self.counts.copies[_places()] += 1
        self.counts.copied += x.nbytes

    def _count_synchronization(self, what: str) -> None:
        self.counts.synchronizations[f"{what} @ {_places()}"] += 1

    def _count_mixed(self, name: str, inputs: list[Tensor]) -> None:
        on_cpu = [x for x in inputs if not x.is_meta]
        if len(on_cpu) == len(inputs) or not on_cpu:
            return
        is_index = name in ("index", "index_put_")  # a CPU tensor as an index is copied each time
        if is_index or (name not in _COPIES and any(x.ndim for x in on_cpu)):
            self.counts.mixed[f"{name} @ {_places()}"] += 1

    def _count_launch(self, name: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        on_gpu = [x for x in inputs if x.is_meta] + outputs
        if not any(x.is_meta for x in on_gpu) or name in _VIEWS or name in _ALLOCATIONS:
            return
        if outputs and not any(x.numel() for x in outputs):
            return
        where = f"{name} @ {_places()}"
        self.counts.launches[where] += 1
        # An expanded tensor (with a stride of 0) is small in memory, whatever its shape.
        distinct = {id(x): x for x in on_gpu if 0 not in x.stride()}
        self.counts.moved[where] += sum(x.nbytes for x in distinct.values())


class AttentionCounter(TorchFunctionMode):
    """Counts calls of scaled dot product attention, in ``calls``; each is one kernel on a GPU.

    The keys are the shape and dtype of the mask, whether attention is causal, and the shape of the
    queries. What torch would do on a CPU instead is not counted as launches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count the call if it is attention; return a tensor with the shape of its result."""
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        queries, mask = args[0], kwargs.get("attn_mask")
        of_mask = "none" if mask is None else f"{tuple(mask.shape)} {mask.dtype}"
        causal = kwargs.get("is_causal")
        self.calls[f"mask {of_mask}, causal {causal}, queries {tuple(queries.shape)}"] += 1
        return torch.empty_like(queries)


@contextmanager
def triton_kernels(counter: LaunchCounter) -> Iterator[None]:
    """Inside this context, Triton's kernels are launched for meta tensors too: they are counted."""
    with ExitStack() as swapped:
        for name in _CONDITIONS:
            swapped.enter_context(patch(name, lambda x: True))
        for name in _KERNELS:
            swapped.enter_context(patch(name, _Launched(counter, name.rpartition(".")[2])))
        yield


class _Launched:
    """Stands for a Triton kernel: a launch is counted, and nothing is computed."""

    def __init__(self, counter: LaunchCounter, name: str) -> None:
        self._counter, self._name = counter, name

    def __getitem__(self, grid: object) -> Callable[..., None]:
        def launch(*args: object, **options: object) -> None:
            self._counter.counts.launches[f"{self._name} @ {_places()}"] += 1

        return launch


def _is_composite(func: Any, name: str) -> bool:
    """Return whether torch always splits this operation into others, which are counted instead."""
    if name in ("linear", "item"):
        return False
    key = "CompositeImplicitAutograd"
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for branch in tree.values():
            yield from _tensors(branch)
    elif isinstance(tree, list | tuple):
        for branch in tree:
            yield from _tensors(branch)


def _places() -> str:
    """Return the innermost three lines of lozo_bench and scripts/bench that are running."""
    places: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(places) < 3:
        path = frame.f_code.co_filename
        if path.startswith(_OURS):
            places.append(f"{path.removeprefix(f'{ROOT}/')}:{frame.f_lineno}")
        frame = frame.f_back
    return " <- ".join(places)
