"""The results of the bench as rows, as a table and as a picture."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from bench.modes import FLOOR
from bench.timing import Times

Row = dict[str, Any]


def row(mode: str, times: Times, floor: Times, peak_bytes: int, tokens: int) -> Row:
    """Return the row of a mode.

    ``ratio_to_floor`` is the median over repeats of the mode's time divided by the floor's time;
    ``ratio_low`` and ``ratio_high`` are its quartiles. ``cpu_ratio_to_floor`` is the same ratio of
    the process's CPU time, which other programs on the machine disturb less. ``tokens_per_s``
    counts the tokens of the plain batch for every mode: it is the speed at which the mode processes
    training data.
    """
    ratios = _ratios(times.wall, floor.wall)
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    ms = median(times.wall)
    return {
        "mode": mode,
        "ms_median": ms,
        "ms_min": min(times.wall),
        "ms_max": max(times.wall),
        "peak_bytes": peak_bytes,
        "ratio_to_floor": median(ratios),
        "ratio_low": low,
        "ratio_high": high,
        "cpu_ratio_to_floor": median(_ratios(times.cpu, floor.cpu)),
        "tokens_per_s": 1000 * tokens / ms,
    }


def table(header: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return the results as a table for a terminal."""
    floor = next(row for row in rows if row["mode"] == FLOOR)
    cpu = header["device"] == "cpu"
    lines = [
        f"{_batch_description(header)}; {header['device_name']}, torch {header['torch']},"
        f" {header['threads']} threads",
        f"{'mode':15}{'median ms':>11}{'min':>10}{'max':>10}{'/ floor':>10}{'quartiles':>15}"
        + (f"{'/ floor, CPU':>14}" if cpu else "")
        + f"{'peak MiB':>11}{'/ floor':>9}{'tokens/s':>11}",
    ]
    for row in rows:
        quartiles = f"{row['ratio_low']:.3f}-{row['ratio_high']:.3f}"
        lines.append(
            f"{row['mode']:15}{row['ms_median']:11.2f}{row['ms_min']:10.2f}{row['ms_max']:10.2f}"
            f"{row['ratio_to_floor']:10.3f}{quartiles:>15}"
            + (f"{row['cpu_ratio_to_floor']:14.3f}" if cpu else "")
            + f"{row['peak_bytes'] / 2**20:11.1f}{row['peak_bytes'] / floor['peak_bytes']:9.3f}"
            f"{row['tokens_per_s']:11,.0f}"
        )
    lines += [f"{row['mode']}: {_folding(row, floor)}" for row in rows if "fold_ms" in row]
    return "\n".join(
        [*lines, *(f"{mode}: left out, {why}" for mode, why in header["left_out"].items())]
    )


def plot(header: Mapping[str, Any], rows: Sequence[Row], out: Path) -> None:
    """Draw the ratios to the floor as bars, with whiskers from quartile to quartile."""
    import matplotlib  # imported here, so that the bench also runs without it

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [row["mode"] for row in rows]
    ratios = [row["ratio_to_floor"] for row in rows]
    spread = [
        [row["ratio_to_floor"] - row["ratio_low"] for row in rows],
        [row["ratio_high"] - row["ratio_to_floor"] for row in rows],
    ]
    figure, axes = pyplot.subplots(figsize=(7, 3.4), layout="constrained")
    axes.bar(
        [name.replace("_", "\n", 1) for name in names],
        ratios,
        yerr=spread,
        capsize=4,
        color=[_colour(name) for name in names],
    )
    axes.axhline(1, color="black", linewidth=0.8)
    for position, ratio in enumerate(ratios):
        axes.annotate(f"{ratio:.2f}", (position, ratio), (9, 2), textcoords="offset points")
    axes.set_ylabel("time / two bare forwards")
    axes.set_title(f"{_batch_description(header)}\n{header['device_name']}", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=120)
    pyplot.close(figure)


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _batch_description(header: Mapping[str, Any]) -> str:
    return (
        f"{header['model']} ({header['layers']} layers, hidden {header['hidden']}, "
        f"vocabulary {header['vocab']}; {header['parameters'] / 1e6:,.1f}M {header['dtype']}), "
        f"{header['rows']} rows of {header['length']} tokens"
    )


def _ratios(times: Sequence[float], floor: Sequence[float]) -> list[float]:
    return [time / least for time, least in zip(times, floor, strict=True)]


def _folding(row: Row, floor: Row) -> str:
    share = row["fold_ms"] / row["fold_every"]
    return (
        f"plus a fold of {row['fold_ms']:.1f} ms once in {row['fold_every']} steps, "
        f"+{share / floor['ms_median']:.4f} of the floor per step"
    )


def _colour(mode: str) -> str:
    return {FLOOR: "C7", "published": "C3", "published_mezo": "C1"}.get(mode, "C0")
