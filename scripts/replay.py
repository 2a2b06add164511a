"""Write the weights that a run had after any of its steps.

python scripts/replay.py outputs/default/reviews/tiny_opt/lozo-r2-s0-DIGEST --step 200 --out DIR

A zeroth-order run's log of scalars is enough: its steps are made again without a forward pass. DIR
is then a model that `from_pretrained` loads, or a LoRA adapter where the run moved only that.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path


def main() -> int:
    """Rebuild and write; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--step", type=int, help="which step; left out: the one that was tested")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--device", help="cpu, cuda, ...; left out: where the run was")
    args = parser.parse_args()
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        print(f"--out: {args.out} is there already, and not an empty folder", file=sys.stderr)
        return 2

    from lozo_bench.errors import UserError
    from lozo_bench.replay import rebuild

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    began = time.perf_counter()
    try:
        step = _tested_step(args.run) if args.step is None else args.step
        rebuilt = rebuild(args.run, step, args.device)
        kind = rebuilt.save(args.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.perf_counter() - began
    print(f"step {step}: {kind} in {args.out}; state {rebuilt.weights}; {seconds:.1f} s")
    return 0


def _tested_step(run: Path) -> int:
    from lozo_bench.errors import UserError

    try:
        return int(json.loads((run / "result.json").read_text(encoding="utf-8"))["best_step"])
    except FileNotFoundError:
        raise UserError(f"{run}: not finished: say which --step") from None


if __name__ == "__main__":
    sys.exit(main())
