"""What attention costs when the shape of a batch is new, and when it is not.

cuDNN compiles a kernel for every new number of rows and length, and for the backward pass another
one. The batches of a run have many lengths, so lozo_bench does without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import median

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from gpu.machine import Line, Machine
from lozo_bench.models.devices import prepare

_LENGTHS = (41, 57, 101)
# torch takes cuDNN's kernel where it is allowed and fits.
_ALL = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def attention(machine: Machine) -> Line:
    """Time the first and the later calls of attention at new lengths, without cuDNN and with it."""
    prepare(torch.device(machine.device))
    kinds: dict[str, Callable[[], AbstractContextManager[None]]] = {"as_it_is": nullcontext}
    if machine.is_cuda:
        kinds["with_cudnn"] = lambda: sdpa_kernel(_ALL)
    line: Line = {}
    for kind, chosen in kinds.items():
        with chosen(), torch.inference_mode():
            line[kind] = _times(machine, padded=True)
            line[f"{kind}_causal"] = _times(machine, padded=False)
    return line


def _times(machine: Machine, padded: bool) -> Line:
    """Return the milliseconds of a first call and of later ones, medians over the lengths."""
    _call(machine, 33, padded)()  # loads the library
    first, then = [], []
    for length in _LENGTHS:
        call = _call(machine, length, padded)
        machine.finish()
        began = time.perf_counter()
        call()
        machine.finish()
        first.append(1e3 * (time.perf_counter() - began))
        then.append(machine.milliseconds(call))
    return {"first_ms": round(median(first), 2), "then_ms": round(median(then), 3)}


def _call(machine: Machine, length: int, padded: bool) -> Callable[[], Tensor]:
    """Return attention as OPT-13B has it, with a mask if rows are padded."""
    rows, heads, width = (2, 2, 8) if machine.tiny else (16, 40, 128)
    q, k, v = torch.randn(
        3, rows, heads, length, width, device=machine.device, dtype=torch.bfloat16
    )
    mask = torch.ones(length, length, dtype=torch.bool, device=machine.device).tril()
    mask = mask.expand(rows, 1, length, length)
    if padded:
        return lambda: scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return lambda: scaled_dot_product_attention(q, k, v, is_causal=True)
