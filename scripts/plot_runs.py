"""Plot training loss and dev accuracy of finished runs against forward passes.

python scripts/plot_runs.py outputs/default --out runs.png

Runs that differ only in their seed share a colour: a thin line per seed, a thick line for the mean.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

Curve = list[tuple[float, float]]


def main() -> int:
    """Read the runs, draw the picture, write it and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, help="folders that are searched for result.json"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the picture: a .png, .svg or .pdf file"
    )
    args = parser.parse_args()
    runs = sorted(path.parent for folder in args.folders for path in folder.rglob("result.json"))
    if not runs:
        print(f"no result.json below {', '.join(map(str, args.folders))}", file=sys.stderr)
        return 2
    draw(runs, args.out)
    print(args.out)
    return 0


def draw(runs: list[Path], out: Path) -> None:
    """Write one picture of all ``runs`` to ``out``."""
    losses: dict[str, list[Curve]] = defaultdict(list)
    accuracies: dict[str, list[Curve]] = defaultdict(list)
    for label, run in zip(labels(runs), runs, strict=True):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses[label].append(_curve(rows, "loss"))
        accuracies[label].append(_curve(rows, "dev_accuracy"))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    _panel(left, losses, "training loss")
    _panel(right, accuracies, "dev accuracy")
    right.legend(frameon=False, fontsize="small")
    figure.savefig(out, dpi=120)
    pyplot.close(figure)


def labels(runs: list[Path]) -> list[str]:
    """Return a label for each run: its optimizer and the values that differ among its runs.

    Seeds are not part of the label.
    """
    options = [_options(run) for run in runs]
    names = [run.name.split("-")[0] for run in runs]
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name, config in zip(names, options, strict=True):
        for key, value in config.items():
            values[name, key].add(value)
    return [
        " ".join(
            [name]
            + [
                f"{key.removeprefix('optimizer.')}={value}"
                for key, value in config.items()
                if len(values[name, key]) > 1
            ]
        )
        for name, config in zip(names, options, strict=True)
    ]


def _options(run: Path) -> dict[str, str]:
    """Return a run's config by full key, without seeds and keys that do not describe the method."""
    config = json.loads((run / "result.json").read_text())["config"]
    return {key: str(value) for key, value in _flat(config, "") if not _is_not_shown(key)}


def _is_not_shown(key: str) -> bool:
    return (
        "seed" in key
        or key.startswith("tracking.")
        or key in ("sweep", "rerun", "log_every", "optimizer.rank")
    )


def _flat(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield key, node
        return
    for name, child in node.items():
        yield from _flat(child, f"{key}.{name}".lstrip("."))


def _curve(rows: list[dict[str, Any]], name: str) -> Curve:
    return [(row["forward_passes"], row[name]) for row in rows if name in row]


def _panel(axes: Any, curves: dict[str, list[Curve]], title: str) -> None:
    for number, (label, runs) in enumerate(sorted(curves.items())):
        colour = f"C{number}"
        for curve in runs:
            axes.plot(*zip(*curve, strict=True), color=colour, alpha=0.25, linewidth=0.8)
        passes = sorted(set.intersection(*({x for x, _ in curve} for curve in runs)))
        means = [sum(dict(curve)[x] for curve in runs) / len(runs) for x in passes]
        axes.plot(passes, means, color=colour, linewidth=2, label=f"{label} (n={len(runs)})")
    axes.set(xlabel="forward passes", title=title)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
