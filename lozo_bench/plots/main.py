"""``lozo-plot FOLDER``: draws losses and dev metrics of runs against what they cost."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from lozo_bench.api.result import Result
from lozo_bench.errors import UserError
from lozo_bench.plots.curves import Axis, Shown, panels
from lozo_bench.plots.figure import draw
from lozo_bench.runs.status import statuses_below


def main() -> None:
    """Run the command. Exit code 2 if there is nothing to draw."""
    parser = argparse.ArgumentParser(
        prog="lozo-plot",
        description="Draw the curves of all runs below some folders, unfinished ones too. A line "
        "is the mean of runs that differ only in their seeds, a band one standard deviation.",
    )
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("outputs")])
    parser.add_argument(
        "--x", choices=get_args(Axis), default="passes", help="the horizontal axis (%(default)s)"
    )
    parser.add_argument(
        "--show",
        default="loss,dev",
        help="what to draw, of loss, dev and gap (dev loss - training loss); default: %(default)s",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs.png"), help="a .png, .svg or .pdf file (%(default)s)"
    )
    arguments = parser.parse_args()
    try:
        shown = _shown(arguments.show)
        read = [run for folder in arguments.folders for run in _runs(folder)]
        runs = list({run.folder: run for run in read}.values())  # folders may overlap
        draw(panels(runs, arguments.x, shown), arguments.x, arguments.out)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(arguments.out)


def _shown(text: str) -> list[Shown]:
    names: tuple[Shown, ...] = get_args(Shown)
    given = text.split(",")
    if unknown := [name for name in given if name not in names]:
        raise UserError(f"--show: given {unknown[0]!r}; allowed: {', '.join(names)}")
    return [name for name in names if name in given]


def _runs(folder: Path) -> list[Result]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder that contains the runs")
    found = [Result.read(cell.folder) for cell in statuses_below(folder.resolve())]
    if not found:
        raise UserError(f"{folder}: no runs in it or below it")
    return found


if __name__ == "__main__":
    main()
