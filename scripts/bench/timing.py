"""Time several modes in turns, so that other load on the machine affects all of them equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from bench.modes import Running

WARM_UP = 2
_FOLDS = 3


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of each repeat: wall-clock time, and CPU time of all threads of the process."""

    wall: list[float]
    cpu: list[float]


def interleaved(
    running: Mapping[str, Running], repeats: int, device: torch.device
) -> dict[str, Times]:
    """Time each mode once per repeat, in an order that shifts by one in every repeat.

    The first `WARM_UP` repeats are discarded. The states of torch's global generators are restored.
    """
    times = {name: Times([], []) for name in running}
    names = list(running)
    for mode in running.values():
        for _ in range(mode.warm_up):
            mode.step()
    for repeat in range(WARM_UP + repeats):
        first = repeat % len(names)
        for name in (*names[first:], *names[:first]):
            wall, cpu = timed(running[name].step, device)
            running[name].after()
            if repeat >= WARM_UP:
                times[name].wall.append(wall)
                times[name].cpu.append(cpu)
    return times


def folds(running: Running, device: torch.device) -> list[float]:
    """Return the milliseconds of a few folds of a full stack, each after a step.

    The list is empty if the mode does not fold.
    """
    if running.fold is None or running.refill is None:
        return []
    wall = []
    for _ in range(1 + _FOLDS):
        running.refill()
        running.step()
        wall.append(timed(running.fold, device)[0])
    return wall[1:]


def timed(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the milliseconds of one call: wall-clock time and CPU time of the process."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        _finish(device)
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        _finish(device)
        return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
