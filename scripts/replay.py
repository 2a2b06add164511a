"""Rebuild and save the weights that a run had after any of its steps.

python scripts/replay.py outputs/default/reviews/tiny_opt/lozo-r2-s0-DIGEST --step 200 --out DIR

The log of scalars of a zeroth-order run is enough: its steps are repeated without forward passes.
DIR then holds a model that `from_pretrained` loads, or a LoRA adapter if the run trained only that.
With --pruned it is an adapter of the modules alone that an allocation had turned on at that step.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path


def main() -> int:
    """Rebuild the weights, save them and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of the run")
    parser.add_argument("--step", type=int, help="the step; default: the one that was tested")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--device", help="cpu, cuda, ...; default: the device of the run")
    parser.add_argument(
        "--pruned", action="store_true", help="write only the low-rank modules that are on"
    )
    args = parser.parse_args()
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        print(f"--out: {args.out} exists and is not an empty folder", file=sys.stderr)
        return 2

    from lozo_bench.errors import UserError
    from lozo_bench.training.replay import rebuild
    from lozo_bench.training.stored import tested_step

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    began = time.perf_counter()
    try:
        step = tested_step(args.run) if args.step is None else args.step
        rebuilt = rebuild(args.run, step, args.device)
        kind = rebuilt.save(args.out, args.pruned)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.perf_counter() - began
    print(f"step {step}: {kind} in {args.out}; state {rebuilt.weights}; {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
