"""Draw finished runs: training loss and dev accuracy against forward passes.

python scripts/plot_runs.py outputs/default --out runs.png

Runs that differ only in their seed are drawn in one colour: each seed thin, their mean thick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

Curve = list[tuple[float, float]]


def main() -> int:
    """Read, draw, write; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="searched for metrics.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="a .png, .svg or .pdf file")
    args = parser.parse_args()
    runs = sorted(path.parent for folder in args.folders for path in folder.rglob("metrics.jsonl"))
    if not runs:
        print(f"no metrics.jsonl below {', '.join(map(str, args.folders))}", file=sys.stderr)
        return 2
    draw(runs, args.out)
    print(args.out)
    return 0


def draw(runs: list[Path], out: Path) -> None:
    """One picture of all ``runs``."""
    losses: dict[str, list[Curve]] = defaultdict(list)
    accuracies: dict[str, list[Curve]] = defaultdict(list)
    for run in runs:
        label = f"{run.parent.parent.name}: {run.name.split('-')[0]}"
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses[label].append(
            [(row["forward_passes"], row["loss"]) for row in rows if "loss" in row]
        )
        accuracies[label].append(_dev_curve(rows))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    _panel(left, losses, "training loss")
    _panel(right, accuracies, "dev accuracy")
    right.legend(frameon=False)
    figure.savefig(out, dpi=120)
    pyplot.close(figure)


def _dev_curve(rows: list[dict[str, Any]]) -> Curve:
    """Dev accuracy against the passes spent when it was measured."""
    passes, curve = 0.0, []
    for row in rows:
        passes = row.get("forward_passes", passes)
        if "dev_accuracy" in row:
            curve.append((passes, row["dev_accuracy"]))
    return curve


def _panel(axes: Any, curves: dict[str, list[Curve]], title: str) -> None:
    for number, (label, runs) in enumerate(sorted(curves.items())):
        colour = f"C{number}"
        for curve in runs:
            axes.plot(*zip(*curve, strict=True), color=colour, alpha=0.25, linewidth=0.8)
        places = sorted(set.intersection(*({x for x, _ in curve} for curve in runs)))
        means = [sum(dict(curve)[x] for curve in runs) / len(runs) for x in places]
        axes.plot(places, means, color=colour, linewidth=2, label=f"{label} (n={len(runs)})")
    axes.set(xlabel="forward passes", title=title)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
