"""The peak memory of tensors, including the weights and everything that a mode keeps."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from bench.modes import Running


def peak_bytes(model: nn.Module, start: Callable[[], Running]) -> int:
    """Return the peak memory of a mode from its start through two steps and a fold, if it folds.

    The mode is started anew, so that everything it allocates is counted. On CUDA this is the peak
    of the allocator. On a CPU every allocation of torch is traced, which is exact but too slow to
    be timed at the same time.
    """

    def run_mode() -> None:
        running = start()
        running.step()
        running.step()
        if running.fold is not None:
            running.fold()

    device = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run_mode()
        return torch.cuda.max_memory_allocated()

    def run_traced() -> None:
        # The trace sees that a replaced weight is freed only if it saw it being allocated.
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        run_mode()

    return _bytes(model.buffers()) + peak_on_cpu(run_traced)


def resident_bytes(model: nn.Module) -> int:
    """Return the bytes of the weights and buffers; tied weights count once."""
    return _bytes(model.parameters()) + _bytes(model.buffers())


def peak_on_cpu(run: Callable[[], object]) -> int:
    """Return the peak of the bytes that torch allocates on the CPU while ``run`` runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]"]
    held: dict[int, int] = {}
    now = peak = 0
    for event in sorted(memory, key=lambda event: event["ts"]):
        address, size = event["args"]["Addr"], event["args"]["Bytes"]
        if size > 0:
            held[address] = size
            now += size
            peak = max(peak, now)
        else:  # memory that was allocated before is not in ``held`` and does not count
            now -= held.pop(address, 0)
    return peak


def _bytes(tensors: Iterator[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)
