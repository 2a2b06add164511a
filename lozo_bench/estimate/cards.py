"""The machines that an estimate is for: what they hold, and what they attain in practice."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from lozo_bench.config.schema import Dtype
from lozo_bench.engine.host_memory import available_bytes
from lozo_bench.randomness.draws import Draws

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, or this machine's processors.

    Args:
        name: its name for people.
        memory: the bytes that a run can use.
        half: attainable operations per second of a forward pass in bf16 or fp16.
        single: those in fp32 (torch's default: without TF32).
        bandwidth: bytes per second that are read and written together.
        normals: random normal numbers per second that are drawn and added to the weights.
        launch_s: seconds that each small operation takes at least.
        watts: while it computes.
        rows_per_pass: tokens up to which candidates share a pass (see `engine/fused.py`).
        is_cpu: whether it is this machine's processors, whose memory is also the host's.
    """

    name: str
    memory: float
    half: float
    single: float
    bandwidth: float
    normals: float
    launch_s: float
    watts: float
    is_cpu: bool = False

    def flops(self, dtype: Dtype) -> float:
        """Return the operations per second in a dtype."""
        return self.single if dtype is Dtype.fp32 else self.half


# H100: measured with this package (.assets/bench/gpu_h100_8deecba.jsonl): two forward passes of
# OPT-13B with 16 x 200 tokens take 259 ms (640 TFLOP/s), copies 2.98 TB/s, and drawing and adding a
# normal to a bf16 weight 4 bytes at 877 GB/s. Of 79.2 GiB, 1 GiB is left to CUDA itself. A small
# kernel in a recorded graph takes about 3 us.
# The others are not measured with this package, and their figures were not looked up again. H200
# (data sheet): the same chip with 141 GB at 4.8 TB/s; a rented one measured 4.3 TB/s and 139 GiB.
# A100 80 GB SXM (data sheet): 312 TFLOP/s bf16, 19.5 fp32, 2.04 TB/s, 400 W. RTX 4090 (data
# sheet): 24 GB, 165 TFLOP/s bf16 with fp32 sums, 82.6 fp32, 1.01 TB/s, 450 W. Attained is taken to
# be 0.65 of the sheet's operations, as on the H100 (989), and 0.88 of its bytes. Draws are limited
# by float64 arithmetic, of which an H100 has 34 TFLOP/s, an A100 9.7 and an RTX 4090 1.3.
_CARDS = {
    "h100": Card("H100 80 GB", 78.2 * GIB, 640e12, 45e12, 2.98e12, 219e9, 3e-6, 700),
    "h200": Card("H200 141 GB", 138 * GIB, 640e12, 45e12, 4.3e12, 219e9, 3e-6, 700),
    "a100": Card("A100 80 GB", 78.2 * GIB, 203e12, 14e12, 1.8e12, 62e9, 3e-6, 400),
    "4090": Card("RTX 4090 24 GB", 22.5 * GIB, 107e12, 50e12, 0.89e12, 8e9, 3e-6, 450),
}
# By their memory: what to try where a smaller one has no room.
LARGER = ("4090", "h100", "h200")


def card(name: str) -> Card:
    """Return a card by its name; ``cpu`` is this machine, which is measured for half a second."""
    return _this_machine() if name == "cpu" else _CARDS[name]


@cache
def _this_machine() -> Card:
    """Measure this machine's processors in seconds of their own time, so that load counts little.

    With several threads, those of one are multiplied by their number.
    """
    threads = torch.get_num_threads()
    a, b = torch.randn(256, 1024), torch.randn(1024, 1024)
    products = 2 * 256 * 1024 * 1024 / _seconds(lambda: a @ b)
    half_a, half_b = a.bfloat16(), b.bfloat16()
    halves = 2 * 256 * 1024 * 1024 / _seconds(lambda: half_a @ half_b)
    large = torch.zeros(2**23)
    moved = 2 * large.nbytes / _seconds(lambda: large.add_(1.0))
    draws, count = Draws(0), 10**6
    normals = count / _seconds(
        lambda: draws.normal_range("z", 0, "x", 0, count, torch.device("cpu"), torch.float32)
    )
    small = torch.zeros(8)
    launch = _seconds(lambda: small.add_(1.0), 2000) * 3  # with what Python does around it
    free = available_bytes() or 8 * GIB
    return Card(
        name=f"this machine ({threads} thread{'s' * (threads > 1)})",
        memory=float(free + _resident()),
        half=halves,
        single=products,
        bandwidth=moved,
        normals=normals,
        launch_s=launch,
        watts=15.0 * threads,  # a server's watts divided by its cores, roughly
        is_cpu=True,
    )


def _seconds(call: Callable[[], object], times: int = 3) -> float:
    """Return the processor's seconds of a call, for one thread; of several, those that it waits."""
    call()
    began, waited = time.process_time(), time.perf_counter()
    for _ in range(times):
        call()
    spent, passed = time.process_time() - began, time.perf_counter() - waited
    return min(spent, passed) / times if torch.get_num_threads() == 1 else passed / times


@cache
def base_bytes() -> int:
    """Return what a process with torch and transformers has in memory before it loads a model."""
    importlib.import_module("lozo_bench.training.run")  # a run needs more than an estimate
    return _resident()


def _resident() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 530 * 2**20
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024
