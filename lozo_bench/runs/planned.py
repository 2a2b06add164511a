"""``cells.json`` of a sweep's folder: the cells of the last command, also those not begun yet."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lozo_bench.runs.atomic import write_text
from lozo_bench.runs.files import parse_json, read_file
from lozo_bench.runs.hydra_files import is_cell

_FILE = "cells.json"


def write_planned(sweep: Path, cells: Iterable[Path]) -> None:
    """Write the folders of a command's cells into the folder of the sweep.

    Raises:
        OSError: the disk is full, or the permission is missing.
    """
    inside = [str(cell.relative_to(sweep)) for cell in cells if cell.is_relative_to(sweep)]
    write_text(sweep / _FILE, json.dumps(inside, indent=0) + "\n")


def not_begun(root: Path) -> list[Path]:
    """Return the cells that sweeps at ``root`` or below it, or just above it, have not begun."""
    sweeps = [*root.parents[:2], *(folder for folder, _ in walk(root))]
    planned = {cell for sweep in sweeps for cell in _planned(sweep) if cell.is_relative_to(root)}
    return sorted(cell for cell in planned if not is_cell(cell))


def waiting_in(sweep: Path) -> int:
    """Return how many cells of the sweep in this folder have not begun."""
    return sum(not is_cell(cell) for cell in _planned(sweep))


def _planned(sweep: Path) -> list[Path]:
    try:
        names = parse_json(read_file(sweep / _FILE) or b"[]")
    except ValueError:  # damaged; the next command of the sweep writes it again
        return []
    listed = names if isinstance(names, list) else []
    return [sweep / name for name in listed if isinstance(name, str)]


def walk(
    root: Path, failed: Callable[[OSError], object] | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder at ``root`` or below it, and its subfolders without hidden ones.

    Symbolic links are followed, because results are moved to other disks, and no folder is yielded
    twice. What the caller removes from the subfolders is left out.

    Args:
        root: the first folder.
        failed: is told of each folder that cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for folder, below, _ in os.walk(root, onerror=failed, followlinks=True):
        below[:] = [name for name in below if name[0] != "."]
        try:
            stat = os.stat(folder)  # noqa: PTH116
        except OSError:
            continue
        if (stat.st_dev, stat.st_ino) in seen:
            below.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        yield Path(folder), below
