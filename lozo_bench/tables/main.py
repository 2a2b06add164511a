"""The command ``lozo-tables NAME`` prints an experiment's table; without NAME it lists them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import Progress

from lozo_bench.config.explain import explain
from lozo_bench.config.paths import CONF
from lozo_bench.config.renamed import with_new_names
from lozo_bench.runs.outcome import Code
from lozo_bench.runs.status import CellState, status_of
from lozo_bench.tables.cells import Run, Sweep, choices_of_runs, configs, sweep
from lozo_bench.tables.grids import over_grids
from lozo_bench.tables.show import FORMATS
from lozo_bench.tables.table import Table, build_table

_LISTED = 10


def main() -> None:
    """Print a table. The exit code is 1 if runs are missing, 2 if the command is wrong."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    arguments = _parser().parse_intermixed_args()
    if arguments.name is None:
        print(_experiments())
        return
    overrides, notes = with_new_names([f"experiment={arguments.name}", *arguments.overrides])
    for note in notes:
        print(note, file=sys.stderr)
    try:
        with configs(CONF):
            table = build_table(_sweeps(overrides, arguments.grids))
    except Exception as error:
        line = explain(error, sys.argv[1:])
        if line is None:
            raise
        print(line, file=sys.stderr)
        sys.exit(Code.bad_input)
    print(FORMATS[arguments.format](table))
    if table.missing:
        print(_missing_report(table, arguments.missing), file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lozo-tables",
        usage="lozo-tables [NAME [overrides]] [--format FORMAT] [--grids] [--missing]",
        description="Print the results of an experiment as its paper's table, beside the "
        "published numbers, and the commands of the runs that are missing.",
        epilog="for example: lozo-tables mezo_opt13b task=sst2,rte --format md",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the name of an experiment")
    parser.add_argument(
        "overrides",
        nargs="*",
        help="overrides of the sweep, as for lozo-train -m, or table.KEY=...",
    )
    parser.add_argument("--format", choices=list(FORMATS), default="text")
    parser.add_argument(
        "--grids",
        action="store_true",
        help="cover each row's published grid; dev rows select the point",
    )
    parser.add_argument(
        "--missing",
        action="store_true",
        help=f"list all missing runs instead of the first {_LISTED}",
    )
    return parser


def _experiments() -> str:
    """Return a line with the name and title of each experiment that has a table."""
    titles = {}
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        title = OmegaConf.select(OmegaConf.load(path), "table.title")
        if title is not None:
            titles[path.stem] = title
    width = max(map(len, titles))
    return "\n".join(f"{name:<{width}}  {title}" for name, title in titles.items())


def _sweeps(overrides: Sequence[str], grids: bool) -> list[Sweep]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("configs", total=None)

        def advanced(done: int, of: int) -> None:
            progress.update(bar, completed=done, total=of)

        swept = over_grids(overrides, *choices_of_runs(overrides)) if grids else [overrides]
        return [sweep(each, advanced) for each in swept]


def _missing_report(table: Table, every: bool) -> str:
    """What is missing, and the commands."""
    missing = table.missing
    listed = missing if every else missing[:_LISTED]
    lines = [f"\n{len(missing)} runs are missing:" if len(missing) > 1 else "\n1 run is missing:"]
    lines += [f"  {run.command}{_state_note(run)}" for run in listed]
    if len(listed) < len(missing):
        lines.append(f"  and {len(missing) - len(listed)} more (--missing lists them)")
    lines += ["all of them:", *(f"  {command}" for command in table.commands)]
    return "\n".join(lines)


def _state_note(run: Run) -> str:
    """Return a run's state as a comment after its command; empty if the run has not started."""
    if not run.folder.is_dir():
        return ""
    cell = status_of(run.folder)
    return f"  # {cell.state.value}{': ' if cell.note else ''}{cell.note}" if cell.state in (
        CellState.failed, CellState.stopped, CellState.running
    ) else ""  # fmt: skip


if __name__ == "__main__":
    main()
