"""Draw how often each low-rank module was on, in runs and in the logs of HeteroLoRA's authors.

python scripts/plot_allocation.py outputs/SWEEP/TASK/MODEL/RUN --logs mrpc_combined --out heat.png
python scripts/plot_allocation.py --logs mrpc_combined mrpc_separated sst2_combined --out heat.png

A run draws its own figure, ``allocation.svg``; this script puts several below each other.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lozo_bench.display.allocation_figure import LOGS, heat_maps, heat_of, logged_heat
from lozo_bench.display.figures import rows_of
from lozo_bench.runs.outcome import EVENTS


def main() -> None:
    """Draw the heat maps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="the folder of a run")
    names = sorted(path.stem for path in LOGS.glob("*.csv"))
    parser.add_argument("--logs", nargs="+", default=[], choices=names, help="the authors' logs")
    parser.add_argument("--out", type=Path, default=Path("allocation.png"))
    arguments = parser.parse_args()
    heats = []
    for run in arguments.runs:
        heat = heat_of(rows_of(run / EVENTS))
        if heat is None:
            sys.exit(f"{run}: there are no allocations in its {EVENTS}")
        heats.append(heat)
    heats += map(logged_heat, arguments.logs)
    if not heats:
        parser.error("give the folders of runs, --logs, or both")
    heat_maps(heats).savefig(arguments.out, dpi=110)
    print(arguments.out)


if __name__ == "__main__":
    main()
