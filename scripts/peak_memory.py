"""Peak memory of a whole run beyond the weights, by phase: counted for any size, or measured.

    python scripts/peak_memory.py count
    python scripts/peak_memory.py count --model opt-1.3b --tokens 30
    python scripts/peak_memory.py measure

Both train all weights with LOZO and MeZO, evaluate, keep the best step by dev loss, fold at least
twice, and restore the best step in the end. Activations are those of two bare forward passes of the
same batch, or of a bare evaluation; the rest is the run's own. `count` runs a model in bfloat16 on
meta tensors, as if on a GPU, and counts the bytes of all tensors there and in the host. What
libraries take inside an operation and what CUDA graphs keep is not counted. `measure` runs a random
OPT of 79 million weights in float32 on this CPU, each time in a new process: it counts the bytes of
tensors, and, in other processes, takes the peak of the memory of the process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
# So that a checkout works without an installed lozo_bench.
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from bench.models import KNOWN  # noqa: E402
from peak.counted import Batches, Counted, count  # noqa: E402
from peak.measured import EVALUATION, LOAD, TWO_LOSSES, make_model, measure  # noqa: E402

OPTIMIZERS = ("lozo", "mezo")
RUNS_MODEL = {"two losses": TWO_LOSSES, "evaluate": EVALUATION}


def main() -> None:
    """Print the tables."""
    args = _parser().parse_args()
    if args.command == "count":
        batches = Batches(args.batch, args.tokens, args.options)
        for name in OPTIMIZERS:
            _print_counted(f"{args.model}, {name}", count(args.model, name, batches, args.layers))
    else:
        with tempfile.TemporaryDirectory() as folder:
            _measure(Path(folder), args.repeats, args.override)


def own_bytes(found: Counted) -> dict[str, int]:
    """Return the peaks on the GPU by phase, without the activations of the bare passes."""
    activations = {"two losses": found.two_losses, "evaluate": found.evaluation}
    return {name: peak["meta"] - activations.get(name, 0) for name, peak in found.phases.items()}


def _print_counted(title: str, found: Counted) -> None:
    print(
        f"\n{title}: weights {found.weights / 1e9:.3f} GB; activations "
        f"{found.two_losses / 1e6:.1f} MB in two bare forward passes, "
        f"{found.evaluation / 1e6:.1f} MB in a bare evaluation"
    )
    print(f"{'phase':24}{'times':>6}{'peak MB':>10}{'without activations':>22}{'host MB':>10}")
    own = own_bytes(found)
    for name, peak in found.phases.items():
        print(
            f"{name:24}{found.calls[name] or '':>6}{peak['meta'] / 1e6:10.1f}"
            f"{own[name] / 1e6:12.1f}  {own[name] / found.weights:8.2%}"
            f"{peak['cpu'] / 1e6:10.1f}  {peak['cpu'] / found.weights:8.2%}"
        )


def _measure(folder: Path, repeats: int, more: list[str]) -> None:
    model = folder / "model"
    weights = make_model(model)
    for optimizer in OPTIMIZERS:
        for tracker, times in (("tensors", 1), ("resident", repeats)):
            run, bare = (
                _medians(
                    [measure(optimizer, tracker, what, model, folder, more) for _ in range(times)]
                )
                for what in ("run", "bare")
            )
            _print_measured(f"{optimizer}, {tracker}, median of {times}", run, bare, weights)


def _medians(found: list[dict[str, int]]) -> dict[str, float]:
    return {name: median(each[name] for each in found) for name in found[0]}


def _print_measured(
    title: str, run: Mapping[str, float], bare: Mapping[str, float], weights: int
) -> None:
    base, most = max(bare.values()), max(run.values())
    print(
        f"\n{title}: weights {weights / 1e6:.1f} MB; bare: {bare.get(LOAD, 0) / 1e6:.1f} MB when "
        f"the model is loaded, {bare[TWO_LOSSES] / 1e6:.1f} MB in two forward passes, "
        f"{bare[EVALUATION] / 1e6:.1f} MB in an evaluation"
    )
    for name, peak in run.items():
        like = bare.get(RUNS_MODEL.get(name, LOAD), base)
        print(f"{name:24}{peak / 1e6:10.1f} MB{(peak - like) / weights:9.2%} beyond a bare one")
    print(
        f"{'the whole':24}{most / 1e6:10.1f} MB{(most - base) / weights:9.2%} beyond the bare whole"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    counted = commands.add_parser("count", help="a model of any size, on meta tensors")
    counted.add_argument("--model", choices=KNOWN, default="opt-13b", metavar="MODEL")
    counted.add_argument("--layers", type=int, help="default: the model's")
    counted.add_argument("--batch", type=int, default=16, help="examples; default: 16")
    counted.add_argument("--tokens", type=int, default=200, help="in a row; default: 200")
    counted.add_argument("--options", type=int, default=2, help="of an example; default: 2")
    measured = commands.add_parser("measure", help="79 million weights on this CPU")
    measured.add_argument("--repeats", type=int, default=3, help="of each process; default: 3")
    measured.add_argument("override", nargs="*", help="such as checkpoint.kind=full")
    return parser


if __name__ == "__main__":
    main()
