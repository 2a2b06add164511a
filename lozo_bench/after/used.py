"""What runs have used beside what they were estimated to need (``lozo-status --estimate``).

Estimates are made of the configs in the runs' folders, for the machine that each run is on. Nothing
is loaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lozo_bench.config.schema import CARDS
from lozo_bench.errors import UserError, counted
from lozo_bench.estimate.cell import Estimate, Estimator
from lozo_bench.estimate.table import shown_size
from lozo_bench.runs.blocks import header_of
from lozo_bench.runs.files import read_end
from lozo_bench.runs.outcome import METRICS
from lozo_bench.runs.result_file import load_result
from lozo_bench.runs.row import read_row
from lozo_bench.training.stored import config_in

_TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Used:
    """What a run has used, and its estimate.

    Args:
        hours: of all its devices so far; None: not known.
        peak: the bytes of its peak memory; None: it is not finished.
        found: the estimate of the whole run; None: it cannot be estimated.
        why: the reason for that.
    """

    hours: float | None = None
    peak: float | None = None
    found: Estimate | None = None
    why: str = ""


def used_by(folders: Sequence[Path]) -> list[Used]:
    """Return what the runs in these folders have used; those that are alike are estimated once."""
    estimator = Estimator()
    return [_used(folder, estimator) for folder in folders]


def columns(used: Sequence[Used]) -> dict[str, list[str]]:
    """Return the columns of time and memory, as ``0.8 of 1.2 h``."""
    return {
        "time, of estimated": [
            "" if x.found is None else _time(x.hours, x.found.hours) for x in used
        ],
        "memory, of estimated": [_memory(x) for x in used],
    }


def in_all(used: Sequence[Used], waiting: int) -> str:
    """Return lines with the sum over the runs, the machines, and what could not be estimated.

    Args:
        used: the runs that have begun.
        waiting: how many have not, and are not in the sum.
    """
    known = [x for x in used if x.found is not None and x.hours is not None]
    lines = []
    if known:
        spent = sum(x.hours or 0.0 for x in known)
        expected = sum(x.found.hours for x in known if x.found is not None)
        cards = ", ".join(dict.fromkeys(x.found.card.name for x in known if x.found is not None))
        more = f"; {counted(waiting, 'run')} not begun and not counted" if waiting else ""
        lines.append(
            f"used {_time(spent, expected, 'of an estimated')} (of all devices, on {cards}; "
            f"expect a factor of two, and more of steps of a few milliseconds{more})"
        )
    reasons = dict.fromkeys(x.why for x in used if x.why)
    return "\n".join([*lines, *(f"not estimated: {why}" for why in reasons)])


def _used(folder: Path, estimator: Estimator) -> Used:
    try:
        result = load_result(folder) or {}
        header = header_of(folder)
        about: Mapping[str, Any] = {**header, **result}
        if "config" not in about or "device" not in about:
            return Used(why="runs that have not yet loaded their model, or lost their journal")
        config = config_in(about["config"])
        name = _card_of(str(about["device"])) or config.estimate.card
        node = dataclasses.replace(config.estimate, card=name)
        hours = _hours_so_far(folder, about)
        peak = result.get("peak_memory_bytes")
        found = estimator.estimate(dataclasses.replace(config, estimate=node))
    except (UserError, OSError) as error:
        return Used(why=str(error).splitlines()[0])
    return Used(hours, peak, found)


def _card_of(device: str) -> str | None:
    """Return the card's name in an estimate; None if it is a GPU that is not known."""
    if device.startswith("cpu"):
        return "cpu"
    return next((name for name in CARDS if name in device.lower()), None)


def _hours_so_far(folder: Path, about: Mapping[str, Any]) -> float | None:
    seconds = about.get("elapsed_s")
    if seconds is None:
        lines = read_end(folder / METRICS, _TAIL_BYTES).split(b"\n")[:-1]
        rows = [row for row in map(read_row, lines) if row is not None and "elapsed_s" in row]
        seconds = rows[-1]["elapsed_s"] if rows else None
    if not isinstance(seconds, int | float):
        return None
    processes = (about.get("parallel") or {}).get("processes", 1)
    return float(seconds * processes) / 3600


def _time(hours: float | None, expected: float, of: str = "of") -> str:
    """Return ``0.8 of 1.2 h``, or both in minutes or seconds if the whole is short."""
    choices = (("h", 1, 0.1), ("min", 60, 1 / 30), ("s", 3600, 0.0))
    unit, factor = next((unit, factor) for unit, factor, least in choices if expected >= least)
    spent = "?" if hours is None else _number(hours * factor)
    return f"{spent} {of} {_number(expected * factor)} {unit}"


def _number(x: float) -> str:
    return f"{x:.3g}" if x < 1000 else f"{x:.0f}"


def _memory(of: Used) -> str:
    if of.found is None:
        return ""
    peak = "?" if of.peak is None else shown_size(of.peak)
    return f"{peak} of {shown_size(of.found.memory.peak)}"
