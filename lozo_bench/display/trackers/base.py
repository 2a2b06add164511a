"""What every tracker gets and has to be able to do, and the names that numbers have in trackers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lozo_bench.runs.history import EVALUATED

# Numbers by which a curve can be drawn. They belong to no set, and keep their names.
COSTS = (
    "step", "tested_step", "forward_passes", "backward_passes", "queries", "tokens", "examples",
    "bad_steps", "elapsed_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class About:
    """What a tracker is told about a run when it starts.

    Args:
        folder: the run's folder.
        config: its config as plain values, with ``method``, ``optimizer.name`` and ``tuning.name``.
        name: the run's name.
        run_id: the run's id, which stays the same when the run is resumed.
        tags: words by which runs are found.
        group: the name of the sweep.
    """

    folder: Path
    config: Mapping[str, Any]
    name: str
    run_id: str
    tags: tuple[str, ...] = ()
    group: str | None = None


class Destination(Protocol):
    """A tracker. One that raises OSError or one of its own ``failures`` gets nothing more."""

    failures: tuple[type[Exception], ...]

    def recorded(self, name: str) -> int:
        """Return the last step of a number that earlier attempts recorded; -1: none did.

        What is recorded is not sent again when the run is resumed, and what is missing is sent.
        """

    def log(self, step: int, numbers: Mapping[str, float | str]) -> None:
        """Receive numbers of a step; steps never decrease."""

    def summarize(self, numbers: Mapping[str, float]) -> None:
        """Receive the run's final numbers."""

    def figure(self, path: Path) -> None:
        """Receive a figure, an SVG file."""

    def close(self, failed: bool) -> None:
        """End the record."""


def grouped(row: Mapping[str, float | str]) -> dict[str, float | str]:
    """Return a row with names in groups: ``train/loss``, ``dev/accuracy``, ``test/accuracy``."""
    return {_grouped(key): value for key, value in row.items()}


def _grouped(key: str) -> str:
    if key in COSTS or "/" in key:
        return key
    for name in EVALUATED:
        if key.startswith(f"{name}_"):
            return f"{name}/{key.removeprefix(f'{name}_')}"
    return f"train/{key}"
