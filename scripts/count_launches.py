"""Count what one training step would do on a GPU, without a GPU.

python scripts/count_launches.py opt-13b --layers 2
python scripts/count_launches.py opt-13b --layers 2 --length 30 --options 2 \
    --modes fused,answer_only

For each mode of scripts/bench_step.py it prints how many kernels a step launches, how many bytes
they move, how many copies go to the GPU and how often the host waits for it, with the lines of code
that cause them; also for one fold. Meta tensors stand for tensors on the GPU, so the model can have
any size. A step's numbers grow linearly with the layers, except for the division of random draws
into chunks: two small runs, for example with 2 and with 4 layers, give those of the whole model.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
# So that a checkout works without an installed lozo_bench.
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from bench import models, modes  # noqa: E402
from gpu.counting import (  # noqa: E402
    AttentionCounter,
    Counts,
    LaunchCounter,
    triton_kernels,
)

from lozo_bench.errors import UserError  # noqa: E402

RANK, MAX_RANK = 2, 32
DEFAULT_MODES = "two_forwards,fused,in_place,answer_only"
MODES = (*DEFAULT_MODES.split(","), "published", "published_mezo")


def main() -> int:
    """Count, print and return the exit code: 2 for a user's mistake."""
    args = _parser().parse_args()
    torch.set_num_threads(1)
    config = models.config_of(
        args.model, models.KNOWN[args.model].overridden(args.layers, None, None)
    )
    try:
        modes.check(config, args.length, args.options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    model = models.random_model(config, torch.bfloat16, torch.device("meta"))
    masked = models.is_masked(config)
    distinct = max(2, args.options) if masked else args.options
    counter, attention = LaunchCounter(distinct), AttentionCounter()
    with counter, attention, triton_kernels(counter):
        job = modes.work(model, masked, args.batch, args.length, args.options)
        starts = modes.modes(job, RANK, MAX_RANK, None)
        for name in args.modes:
            counter.counts = Counts()
            running = starts[name]()
            _print_totals(f"{name}: its start", counter.counts)
            running.step()  # the first step may do what later ones need not
            counter.counts = Counts()
            attention.calls.clear()
            began = time.perf_counter()
            running.step()
            seconds = time.perf_counter() - began
            _print_totals(f"{name}: a step", counter.counts, attention.calls, seconds)
            _print_details(counter.counts, attention.calls, args.lines)
            if running.fold is not None and name == "fused":
                counter.counts = Counts()
                running.fold()
                _print_totals(f"{name}: a fold", counter.counts)
                _print_details(counter.counts, Counter(), args.lines)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", choices=models.KNOWN, metavar="MODEL", help=", ".join(models.KNOWN)
    )
    parser.add_argument("--layers", type=_count, help="default: the model's")
    parser.add_argument("--batch", type=_count, default=16, help="examples; default: 16")
    parser.add_argument("--length", type=_count, default=200, help="tokens in a row; default: 200")
    parser.add_argument("--options", type=_count, default=1, help="of each example; default: 1")
    parser.add_argument(
        "--modes", type=_modes, default=DEFAULT_MODES, help=f"default: {DEFAULT_MODES}"
    )
    parser.add_argument(
        "--lines", type=_count, default=45, help="lines of code printed; default: 45"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"given {text!r}; allowed: a whole number >= 1")
    return int(text)


def _modes(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in MODES:
            raise argparse.ArgumentTypeError(f"given {name!r}; allowed: {', '.join(MODES)}")
    return names


def _print_totals(
    title: str, counts: Counts, attention: Counter[str] | None = None, seconds: float | None = None
) -> None:
    calls = sum(attention.values()) if attention is not None else 0
    print(
        f"{title}: {counts.launches.total() + calls} launches, {calls} of them attention; "
        f"{counts.moved.total() / 1e9:.3f} GB moved; "
        f"{counts.copies.total()} copies to the GPU, {counts.copied} bytes; "
        f"{counts.synchronizations.total()} synchronizations"
        + (f"; {seconds:.3f} s of the host" if seconds is not None else "")
    )


def _print_details(counts: Counts, attention: Counter[str], lines: int) -> None:
    for title, counter in (
        ("mixes devices", counts.mixed),
        ("synchronization", counts.synchronizations),
        ("copy to the GPU", counts.copies),
        ("attention", attention),
    ):
        for what, count in counter.most_common():
            print(f"  {title}: {count} {what}")
    for what, count in counts.launches.most_common(lines):
        print(f"    {count} {what} {counts.moved[what] / 1e9:.3f} GB")


if __name__ == "__main__":
    sys.exit(main())
