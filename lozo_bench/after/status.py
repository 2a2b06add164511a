"""The command ``lozo-status outputs/``: the status of runs and, if asked, their cost."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lozo_bench.runs.forget import forget_failed
from lozo_bench.runs.planned import not_begun
from lozo_bench.runs.status import CellState, lasting_console, print_table, statuses_below


def main() -> None:
    """Run ``lozo-status [DIR]``. Exit code 1 if a cell failed, 2 if there are no cells."""
    parser = _parser()
    arguments = parser.parse_args()
    folder = arguments.folder
    if not folder.is_dir():
        parser.exit(2, f"{folder}: no such folder; give the folder that contains the runs\n")
    found = statuses_below(folder.resolve())
    if not found:
        parser.exit(2, f"{folder}: no runs in it or below it\n")
    if arguments.forget:
        print("\n".join(forget_failed(cell.folder for cell in found)))
        return
    waiting = len(not_begun(folder.resolve()))
    if arguments.estimate:
        from lozo_bench.after.used import columns, in_all, used_by

        used = used_by([cell.folder for cell in found])
        print_table(found, waiting, columns(used))
        lasting_console().print(in_all(used, waiting))
    else:
        print_table(found, waiting)
    sys.exit(1 if any(cell.state is CellState.failed for cell in found) else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lozo-status", description="Print the status of the runs below a folder."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs"))
    parser.add_argument(
        "--forget",
        choices=["failed"],
        help="remove the folders of the runs that failed; finished and running ones are kept",
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="time and memory that the runs have used, beside what `estimate=true` says of them",
    )
    return parser


if __name__ == "__main__":
    main()
