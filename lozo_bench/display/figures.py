"""What the figures of a run have in common: they are drawn after it, and may fail without it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lozo_bench.errors import UserError
from lozo_bench.runs.atomic import write_whole
from lozo_bench.runs.files import read_file
from lozo_bench.runs.row import Row, read_row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
T = TypeVar("T")


def draw(path: Path, read: Callable[[], T | None], figure: Callable[[T], Figure]) -> Path | None:
    """Write a figure as an SVG file.

    Matplotlib is optional: without it, a line is logged that says how to get it. A figure that
    cannot be drawn is one logged line, because the run is finished without it.

    Args:
        path: the file.
        read: reads what the figure shows; None if the run has nothing of it.
        figure: makes the figure of it.

    Returns:
        The file, or None if there is no figure.
    """
    try:
        shown = read()
        return None if shown is None else _written(path, lambda: figure(shown))
    except (OSError, UserError) as error:
        log.warning("%s is not drawn: %s", path.name, error)
        return None


def _written(path: Path, figure: Callable[[], Figure]) -> Path | None:
    try:
        import matplotlib
    except ImportError:
        log.info("%s is not drawn without matplotlib: pip install 'lozo-bench[plots]'", path.name)
        return None
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # or it tells where its fonts are
    # The same run gives the same file, and its words stay words.
    with matplotlib.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        made, metadata = figure(), {"Date": None}
        write_whole(path, lambda draft: made.savefig(draft, format="svg", metadata=metadata))
    return path


def rows_of(path: Path) -> list[Row]:
    """Return the rows of a file; a damaged line is left out."""
    lines = (read_file(path) or b"").splitlines()
    return [row for line in lines if (row := read_row(line)) is not None]
