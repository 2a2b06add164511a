"""The most bytes that tensors hold at a time, weights and whatever a mode keeps included."""

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
    """Peak of a mode from its start over two steps and, where it has one, a fold.

    The mode is started anew, so that all it ever holds counts. On CUDA this is the allocator's
    peak; on a CPU every allocation of torch is followed, which is exact and too slow to be timed.
    """

    def all_of_it() -> None:
        running = start()
        running.step()
        running.step()
        if running.fold is not None:
            running.fold()

    device = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        all_of_it()
        return torch.cuda.max_memory_allocated()

    def in_sight() -> None:
        # A weight that a mode replaces can only be seen to go if it was seen to come.
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        all_of_it()

    return _bytes(model.buffers()) + peak_on_cpu(in_sight)


def resident_bytes(model: nn.Module) -> int:
    """Bytes of the weights and buffers, tied ones once."""
    return _bytes(model.parameters()) + _bytes(model.buffers())


def peak_on_cpu(run: Callable[[], object]) -> int:
    """The most bytes that are held at a time of those that torch allocates while ``run`` runs."""
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
        else:  # of what came before, nothing is held here
            now -= held.pop(address, 0)
    return peak


def _bytes(tensors: Iterator[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)
