"""What the card can do at best, which bounds the speed of everything else."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gpu.machine import Line, Machine


def device(machine: Machine) -> Line:
    """Measure the card: matrix products, memory, launches and copies to it."""
    line: Line = {}
    n = 256 if machine.tiny else 8192
    a = torch.randn(n, n, device=machine.device, dtype=torch.bfloat16)
    b = torch.randn(n, n, device=machine.device, dtype=torch.bfloat16)
    seconds = machine.milliseconds(lambda: a @ b, 10) / 1e3
    line["bf16_tflops"] = round(2 * n**3 / seconds / 1e12, 1)

    x = torch.empty(2**20 if machine.tiny else 2**31, device=machine.device, dtype=torch.int8)
    y = torch.empty_like(x)
    seconds = machine.milliseconds(lambda: y.copy_(x)) / 1e3
    line["copy_tb_s"] = round(2 * x.numel() / seconds / 1e12, 3)

    small = torch.zeros(8, device=machine.device)

    def launch_1000_kernels() -> None:
        for _ in range(1000):
            small.add_(1.0)

    line["us_per_launch"] = round(machine.milliseconds(launch_1000_kernels, 3), 2)

    host = torch.zeros(40_000 if machine.tiny else 4_000_000, dtype=torch.int64)
    seconds = machine.milliseconds(lambda: host.to(machine.device)) / 1e3
    line["h2d_pageable_gb_s"] = round(host.nbytes / seconds / 1e9, 2)
    return line


def linear_designs(machine: Machine) -> Line:
    """Measure what low-rank terms add to a linear layer, for several ways to add them."""
    # The shapes of OPT-13B, and the tokens of 16 rows of 200 and of SST-2's batch.
    shapes, tokens = [(5120, 5120), (5120, 20480), (20480, 5120)], [3200, 464]
    if machine.tiny:
        shapes, tokens = [(64, 64), (64, 256)], [48]
    found = {}
    for N in tokens:
        for n, m in shapes:
            ms = {name: machine.milliseconds(run, 20) for name, run in _designs(machine, N, n, m)}
            floor = ms.pop("linear")
            ratios = {name: round(t / floor, 3) for name, t in ms.items()}
            found[f"{N}x{n}->{m}"] = {"linear_ms": round(floor, 4), **ratios}
    return {"ratio_to_linear": found}


def _designs(machine: Machine, N: int, n: int, m: int) -> list[tuple[str, Callable[[], object]]]:
    """Return ways to compute x W^T + b + (x V^T) L for N tokens, n inputs and m outputs.

    A full stack has 32 columns of closed periods and 2 of the open one; the bias adds one more,
    which makes 35. 40 and 48 are the next widths that suit the card's matrix units.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=machine.device, dtype=torch.bfloat16)

    W, b, x = normal(m, n), normal(m), normal(1, N, n)
    designs: list[tuple[str, Callable[[], object]]] = [("linear", lambda: F.linear(x, W, b))]
    for k in (35, 40, 48):
        V, L = normal(k, n), normal(1, k, m)

        def low_rank_last(V: Tensor = V, L: Tensor = L) -> None:  # as lozo_bench does it
            y = F.linear(x, W, b)
            y.baddbmm_(F.linear(x, V), L)

        def low_rank_first(V: Tensor = V, L: Tensor = L) -> None:
            y = F.linear(x, V)[0] @ L[0]
            y.addmm_(x[0], W.T)

        designs += [(f"after_{k}", low_rank_last), (f"first_{k}", low_rank_first)]
    wide_x, wide_W, V64 = normal(N, n + 64), normal(m, n + 64), normal(64, n)

    def concatenated() -> None:
        torch.mm(wide_x[:, :n], V64.T, out=wide_x[:, n:])
        F.linear(wide_x, wide_W, b)

    V40 = V64[:40]
    return [
        *designs,
        ("k_concat_64", concatenated),
        ("only_xv_40", lambda: F.linear(x, V40)),
    ]
