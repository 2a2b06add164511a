"""Layer norm and RMS norm by one Triton launch, with other weights for each group of rows.

Activations of several versions of a model are stacked: their rows consist of equal groups, and each
group has its own weights and biases. Everything is computed in float32 and rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lozo_bench.engine.kernels import as_bfloat
from lozo_bench.randomness.kernels import OPTIONS, jit, run_on, tl

_LARGEST = 16384  # numbers in a row; one program keeps a whole row in registers
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


# A kernel is compiled once for each dtype and length of rows, with or without weights and biases.
@jit(do_not_specialize=["rows", "rows_each"])  # type: ignore[untyped-decorator]
def _norm(  # type: ignore[no-untyped-def]
    y_at,
    x_at,
    weight_at,
    bias_at,
    weight_step,
    bias_step,
    d,
    rows: tl.int32,
    rows_each: tl.int32,
    eps: tl.float32,
    CENTER: tl.constexpr,
    BFLOAT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    across = tl.cdiv(rows, rows_each)
    group = tl.program_id(0) // across
    first = (tl.program_id(0) % across) * rows_each
    group = group.to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < d
    row, end = first, tl.minimum(first + rows_each, rows)
    while row < end:  # not for: with some versions, the interpreter knows no range of an argument
        at = (group * rows + row) * d + column
        x = tl.load(x_at + at, mask=inside, other=0.0).to(tl.float32)
        if CENTER:
            x = tl.where(inside, x - tl.sum(x, axis=0) / d, 0.0)
        y = x * tl.rsqrt(tl.sum(x * x, axis=0) / d + eps)
        # Read anew for each row: they come from the cache, and would take half of the registers.
        if weight_at is not None:
            y *= tl.load(weight_at + group * weight_step + column, mask=inside, other=0.0)
        if bias_at is not None:
            y += tl.load(bias_at + group * bias_step + column, mask=inside, other=0.0)
        tl.store(y_at + at, as_bfloat(y) if BFLOAT else y.to(y_at.dtype.element_ty), mask=inside)
        row += 1


def has_norm_kernel(x: Tensor) -> bool:
    """Return whether the functions below work for these activations."""
    return (
        x.dtype in _DTYPES
        and 0 < x.shape[-1] <= _LARGEST
        and not (x.requires_grad and torch.is_grad_enabled())
        and run_on(x.device)
    )


def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float
) -> Tensor:
    """Return the layer norm over the last dimension, in the dtype and shape of x.

    Args:
        x: activations [..., d] for which `has_norm_kernel` holds; their rows, in order, are
            ``groups`` equal groups.
        weight: factors, float32: [groups, d], or [1, d] if all groups have the same; None for none.
        bias: what is added at the end, likewise.
        groups: number of groups.
        eps: added to the variance.
    """
    return _normalised(x, weight, bias, groups, eps, center=True)


def rms_norm(x: Tensor, weight: Tensor | None, groups: int, eps: float) -> Tensor:
    """Return the RMS norm over the last dimension; see `layer_norm`."""
    return _normalised(x, weight, None, groups, eps, center=False)


def _normalised(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float, *, center: bool
) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    d = x.shape[-1]
    rows = x.numel() // (d * groups)
    if not rows:
        return y
    rows_each = _rows_each(rows * groups)
    weight, weight_step = _rows_of(weight)
    bias, bias_step = _rows_of(bias)
    bfloat = x.dtype == torch.bfloat16
    width = 1 << (d - 1).bit_length()
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _norm[(groups * -(-rows // rows_each),)](
            y.view(torch.int16) if bfloat else y,
            x,
            weight,
            bias,
            weight_step,
            bias_step,
            d,
            rows,
            rows_each,
            eps,
            CENTER=center,
            BFLOAT=bfloat,
            WIDTH=width,
            num_warps=_warps(width),
            **OPTIONS,
        )
    return y


def _rows_of(vectors: Tensor | None) -> tuple[Tensor | None, int]:
    """Return vectors whose numbers lie next to each other, and the distance between vectors."""
    if vectors is None:
        return None, 0
    if vectors.stride(1) != 1:
        vectors = vectors.contiguous()
    return vectors, 0 if vectors.shape[0] == 1 else vectors.stride(0)


def _warps(width: int) -> int:
    """Return how many warps share a row: each of their threads has 64 numbers of a long one.

    On an H100, four warps took 0.040 ms for 3200 rows of 5120 numbers, and sixteen took 0.048 ms.
    """
    return min(32, max(1, width // 2048))


def _rows_each(rows: int) -> int:
    """Return how many rows one program normalises, one after another."""
    return 1 if rows < 2000 else 2
