"""What a sweep prints at its end, whichever launcher ran it: its table, and what is unfinished."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lozo_bench import launch
from lozo_bench.config.schema import TrackingConfig
from lozo_bench.runs.apart import chosen
from lozo_bench.runs.atomic import write_text
from lozo_bench.runs.hydra_files import is_cell
from lozo_bench.runs.outcome import RESULT
from lozo_bench.runs.status import (
    CellState,
    counts,
    lasting_console,
    print_unfinished,
    status_of,
    statuses_below,
)
from lozo_bench.tables.summary import FORMATS, summarize, summary_of_folders

# The files in the sweep's folder that keep the table.
_FILES = {"md": "summary.md", "csv": "summary.csv"}


def _keep(title: str, folder: Path) -> None:
    """Write the table of all runs in the sweep's folder, those of earlier commands too."""
    everything = summary_of_folders(title, [cell.folder for cell in statuses_below(folder)])
    for form, name in _FILES.items():
        with suppress(OSError):  # a full disk: the table is on the screen
            write_text(folder / name, FORMATS[form](everything) + "\n")


@dataclass(frozen=True, slots=True)
class Swept:
    """A cell of a sweep: its folder and its overrides."""

    folder: Path
    overrides: Sequence[str]


def close(folder: Path, cells: Sequence[Swept], tracking: DictConfig) -> None:
    """Print the table of a sweep, how its cells ended, and why some are not finished.

    Args:
        folder: the sweep's folder, in which the table is kept.
        cells: all cells of the sweep.
        tracking: the node ``tracking`` of the sweep: wandb gets the table if it is enabled there.
    """
    known = launch.ended()
    begun = [cell.folder for cell in cells if cell.folder in known or is_cell(cell.folder)]
    found = [known.get(one) or status_of(one) for one in begun]
    console = lasting_console()
    if any((cell.folder / RESULT).exists() for cell in cells):
        title = str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
        summary = summarize(title, [(chosen(cell.overrides), cell.folder) for cell in cells])
        console.print("")
        console.print(FORMATS["text"](summary))
        _keep(title, folder)
        if tracking.wandb and any(cell.state is CellState.finished for cell in found):
            from lozo_bench.display.trackers.wandb_sweep import send_sweep  # it needs wandb

            typed = OmegaConf.to_object(tracking)
            assert isinstance(typed, TrackingConfig)
            send_sweep(folder, typed)
    if not found:
        return
    console.print(counts(found))
    for cell in found:
        if cell.state is CellState.skipped and cell.note != "finished before":
            console.print(f"  {cell.folder.name}: skipped: {cell.note}")
    print_unfinished(console, found)
    if left := len(cells) - len(begun):
        console.print(
            f"{left} more did not begin; run the same command again to continue the sweep"
        )
