"""What others got when they ran a paper's methods, to print below its table."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lozo_bench.tables.cells import Sweep

RERUNS = Path(__file__).with_name("reruns.csv")
HEADING = "Others' reruns, which are not the paper's numbers:"


@dataclass(frozen=True, slots=True)
class Rerun:
    """A number of somebody who is not an author of the method.

    Args:
        source: who reports it; `sources` says where.
        dtype: the dtype of the weights; empty if it is not said.
        task: the task, or what the mean is over, or ``step`` for the time of a step.
        metric: what the value is; scores are in percent, times in milliseconds.
    """

    source: str
    model: str
    dtype: str
    method: str
    task: str
    metric: str
    value: str


def reruns() -> list[Rerun]:
    """Return all reruns that are known."""
    return [Rerun(**row) for row in csv.DictReader(_lines(comments=False))]


def sources() -> dict[str, str]:
    """Return for each source where its numbers are from."""
    pairs = (line.removeprefix("# ").split(": ", 1) for line in _lines(comments=True))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def reruns_below(sweeps: Sequence[Sweep]) -> str:
    """Return the reruns with the models of a table, as lines of text."""
    models = {run.folder.parent.name for sweep in sweeps for run in sweep.runs}
    found = [each for each in reruns() if each.model in models]
    if not found:
        return f"No reruns by others are known for {', '.join(sorted(models))}."
    places, lines = sources(), [HEADING]
    for source in dict.fromkeys(each.source for each in found):
        lines.append(f"  {source} ({places[source]})")
        lines += _by_method([each for each in found if each.source == source])
    return "\n".join(lines)


def _by_method(found: Sequence[Rerun]) -> Iterable[str]:
    """Yield a line for each model, dtype and method."""
    lines: dict[str, list[str]] = {}
    for each in found:
        unit = " ms" if each.metric == "ms" else ""
        key = " ".join(filter(None, (each.model, each.dtype, each.method)))
        lines.setdefault(key, []).append(f"{each.task} {each.value}{unit}")
    return (f"    {key}: {', '.join(values)}" for key, values in lines.items())


def _lines(comments: bool) -> list[str]:
    lines = RERUNS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("#") is comments]
