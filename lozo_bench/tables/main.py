"""The command ``lozo-tables``: an experiment's table, or that of any sweep."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import Progress

from lozo_bench.config.paths import CONF
from lozo_bench.config.renamed import with_new_names
from lozo_bench.errors import UserError
from lozo_bench.runs.apart import chosen
from lozo_bench.runs.outcome import RESULT
from lozo_bench.runs.status import statuses_below
from lozo_bench.tables.cells import (
    Run,
    Sweep,
    choices_of_runs,
    configs,
    mistakes_in_one_line,
    sweep,
)
from lozo_bench.tables.grids import over_grids
from lozo_bench.tables.missing import LISTED, missing_report
from lozo_bench.tables.reruns import reruns_below
from lozo_bench.tables.show import FORMATS
from lozo_bench.tables.summary import FORMATS as SUMMARY_FORMATS
from lozo_bench.tables.summary import summarize, summary_of_folders, unfinished
from lozo_bench.tables.table import build_table


def main() -> None:
    """Print a table. The exit code is 1 if runs are missing, 2 if the command is wrong."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    arguments = _parser().parse_intermixed_args()
    if arguments.name is None:
        print(_experiments())
        return
    with mistakes_in_one_line(), configs(CONF, arguments.config_dir):
        printed, missing = _table(arguments)
    print(printed)
    if missing:
        print(missing, file=sys.stderr)
        sys.exit(1)


def _table(arguments: argparse.Namespace) -> tuple[str, str]:
    """Return the table as text, and a report of what is missing, which may be empty."""
    folder = _folder(arguments.name, arguments.config_dir)
    if folder is not None and not arguments.overrides:
        return _of_folder(folder, arguments.format)
    named = arguments.name if "=" in arguments.name else f"experiment={arguments.name}"
    overrides, notes = with_new_names([named, *arguments.overrides])
    for note in notes:
        print(note, file=sys.stderr)
    sweeps = _sweeps(overrides, arguments.grids)
    if "=" in arguments.name and not sweeps[0].table.title:
        title = " ".join(overrides)
        summary = summarize(title, [(_chosen_of(run), run.folder) for run in sweeps[0].runs])
        absent = [run for run in sweeps[0].runs if not (run.folder / RESULT).exists()]
        report = missing_report(absent, [sweeps[0].command], arguments.missing) if absent else ""
        return SUMMARY_FORMATS[arguments.format](summary), report
    table = build_table(sweeps)
    if others := " ".join(word for word in arguments.overrides if not _of_all_tables(word)):
        table.config.title += f", with {others}"
    every = arguments.missing
    report = missing_report(table.missing, table.commands, every) if table.missing else ""
    printed = FORMATS[arguments.format](table)
    if arguments.reruns:
        printed += f"\n{reruns_below(sweeps)}"
    return printed, report


def _of_all_tables(word: str) -> bool:
    """Whether an override leaves what the title of an experiment's table says."""
    return word.lstrip("+~").startswith(("table.", "hydra", "seed=", "scale="))


def _chosen_of(run: Run) -> dict[str, str]:
    """Return the choices of a run that can change its result."""
    return chosen([f"{key}={value}" for key, value in run.choices.items()])


def _folder(name: str, config_dir: Path | None) -> Path | None:
    """Return the folder that is meant: a folder of runs, or that of a sweep below outputs/.

    The name of an experiment that has a table means the experiment.
    """
    for conf in filter(None, (config_dir, CONF)):
        path = conf / "experiment" / f"{name}.yaml"
        if path.is_file() and OmegaConf.select(OmegaConf.load(path), "table.title"):
            return None
    found = [path for path in (Path(name), Path("outputs", name)) if path.is_dir()]
    return found[0] if found else None


def _of_folder(folder: Path, form: str) -> tuple[str, str]:
    cells = statuses_below(folder.resolve())
    if not cells:
        raise UserError(f"{folder}: no runs in it or below it")
    summary = summary_of_folders(str(folder), [cell.folder for cell in cells])
    report = unfinished(summary)
    more = f"\n{report}; `lozo-status {shlex.quote(str(folder))}` says why" if report else ""
    return SUMMARY_FORMATS[form](summary), more


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lozo-tables",
        usage="lozo-tables [NAME | FOLDER | SWEEP] [overrides] [--format FORMAT] [--grids] "
        "[--missing] [--reruns] [--config-dir DIR]",
        description="Print the results of an experiment as its paper's table, beside the "
        "published numbers, and the commands of the runs that are missing; or the table of any "
        "sweep: mean and standard deviation over the seeds by what sets its runs apart.",
        epilog="for example: lozo-tables mezo_opt13b task=sst2,rte --format md; "
        "lozo-tables outputs/default; lozo-tables optimizer=lozo,mezo seed=s0,s1",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="an experiment, a folder of runs, the name of a sweep, or the first override",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="overrides of the sweep, as for lozo-train -m, or table.KEY=...",
    )
    parser.add_argument(
        "--config-dir", type=Path, help="a further folder of YAML files, as for lozo-train"
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
        help=f"list all missing runs instead of the first {LISTED}",
    )
    parser.add_argument(
        "--reruns",
        action="store_true",
        help="add what others got with the same models; these are not the paper's numbers",
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


if __name__ == "__main__":
    main()
