"""The command ``lozo-figures``: a figure of a paper from finished runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lozo_bench.config.paths import CONF
from lozo_bench.config.renamed import with_new_names
from lozo_bench.figures.catalogue import FIGURES, figure_named
from lozo_bench.figures.page import Page, draw
from lozo_bench.figures.panel import finished
from lozo_bench.tables.cells import Sweep, configs, mistakes_in_one_line, sweep
from lozo_bench.tables.missing import missing_report


def main() -> None:
    """Draw a figure. The exit code is 1 if runs are missing, 2 if the command is wrong."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    arguments = _parser().parse_intermixed_args()
    if arguments.name is None:
        print(_listed())
        return
    with mistakes_in_one_line(), configs(CONF, arguments.config_dir):
        page = figure_named(arguments.name)
        overrides, notes = with_new_names(arguments.overrides)
        for note in notes:
            print(note, file=sys.stderr)
        sweeps = _sweeps(page, overrides)
        report = _missing(sweeps)
        if any(finished(each) for each in sweeps):
            out = arguments.out or Path(f"{arguments.name}.png")
            draw(page, sweeps, out)
            print(out)
            if arguments.wandb:
                _send(out, sweeps)
        else:
            print(f"{arguments.name}: no run is finished, so nothing is drawn", file=sys.stderr)
    if report:
        print(report, file=sys.stderr)
        sys.exit(1)


def _listed() -> str:
    width = max(map(len, FIGURES))
    return "\n".join(f"{name:<{width}}  {page.title}" for name, page in FIGURES.items())


def _sweeps(page: Page, given: Sequence[str]) -> list[Sweep | None]:
    """Return the runs of each panel; panels of the same runs share them."""
    made: dict[tuple[str, ...], Sweep] = {}
    found: list[Sweep | None] = []
    for panel in page.panels:
        if panel.source is None:
            found.append(None)
            continue
        words = tuple(panel.source.words(given))
        if words not in made:
            made[words] = sweep(words)
        found.append(made[words])
    return found


def _send(out: Path, sweeps: Sequence[Sweep | None]) -> None:
    from lozo_bench.display.trackers.wandb_sweep import send_file  # it needs wandb

    folders = dict.fromkeys(run.folder for each in sweeps for run in finished(each))
    names = send_file(out, list(folders))
    print(f"{out} is in wandb, in {', '.join(names)}")


def _missing(sweeps: Sequence[Sweep | None]) -> str:
    """Return what is missing, with the commands that make it; empty if all is there."""
    missing, commands = {}, []
    for each in sweeps:
        done = {run.folder for run in finished(each)}
        absent = [run for run in each.runs if run.folder not in done] if each else []
        if each and absent:
            missing.update({run.folder: run for run in absent})
            commands.append(each.command)
    unique = list(dict.fromkeys(commands))
    return missing_report(list(missing.values()), unique, every=False) if missing else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lozo-figures",
        usage="lozo-figures [NAME] [overrides] [--out FILE] [--config-dir DIR]",
        description="Draw a figure of a paper from the finished runs of its experiment, beside "
        "the published numbers, and print the commands of the runs that are missing. Without a "
        "name it lists the figures.",
        epilog="for example: lozo-figures lozo_ablation --out ablation.pdf",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a figure")
    parser.add_argument(
        "overrides", nargs="*", help="overrides of its sweeps, as for lozo-train -m"
    )
    parser.add_argument("--out", type=Path, help="a .png, .svg or .pdf file; default: NAME.png")
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="also log the figure in wandb, in the artifact of its sweep",
    )
    parser.add_argument(
        "--config-dir", type=Path, help="a further folder of YAML files, as for lozo-train"
    )
    return parser


if __name__ == "__main__":
    main()
