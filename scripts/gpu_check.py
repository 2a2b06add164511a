"""Check and measure everything of this project that depends on a GPU, in at most eight minutes.

python scripts/gpu_check.py                       on a machine with a GPU
python scripts/gpu_check.py --device cpu --tiny   the same code with tiny sizes, to try it
python scripts/gpu_check.py --only draws,kernel   some of the checks; --list describes all

First comes what must be right, then what should be fast. Standard output has one line of JSON for
each check as soon as it is done, after a line about the card, the versions and the commit. Standard
error has the same as a table: the figure that matters and what is expected. The exit code is 0 if
no check failed, and otherwise 1.

The script needs only torch, transformers, numpy and what they install (on CUDA, also triton). It
downloads nothing. A check that raises an exception, or for which too little time is left, is
reported, and the next one follows. After an error that leaves CUDA unusable, the script starts
itself anew with the remaining checks.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

BEGAN = time.time()  # importing torch takes seconds, which count

import torch  # noqa: E402
from transformers.utils import logging  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
# So that a checkout works without an installed lozo_bench.
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from gpu import attention, bits, engines, hardware, report, steps, training  # noqa: E402
from gpu.about import about, title  # noqa: E402
from gpu.machine import GIB, Line, Machine  # noqa: E402


@dataclass(frozen=True, slots=True)
class Check:
    """A check.

    Args:
        run: makes it; its name and docstring are the check's.
        seconds: it begins only if this much time is left.
        keeps_model: whether the large model of the check before may stay in memory.
    """

    run: Callable[[Machine], Line]
    seconds: int
    keeps_model: bool = False

    @property
    def name(self) -> str:
        """The name in the output and on the command line."""
        return self.run.__name__

    @property
    def description(self) -> str:
        """What it does, in one line."""
        return (self.run.__doc__ or "").splitlines()[0]


# The seconds are those that an H100 took, and some more.
CHECKS = (
    Check(hardware.device, 3),
    Check(bits.draws, 3),
    Check(bits.kernel, 5),
    Check(engines.engines, 8),
    Check(bits.zero_lr, 7),
    Check(bits.fold_bits, 3),
    Check(training.train, 6),
    Check(training.team, 12),
    Check(steps.step_13b_long, 32, keeps_model=True),
    Check(steps.step_13b_sst2, 16, keeps_model=True),
    Check(steps.profile_13b, 6, keeps_model=True),
    Check(steps.graph_13b, 5, keeps_model=True),
    Check(hardware.linear_designs, 3, keeps_model=True),
    Check(attention.attention, 4, keeps_model=True),
    Check(steps.step_1b3_long, 10, keeps_model=True),
    Check(steps.step_1b3_sst2, 9, keeps_model=True),
    Check(steps.snapshot, 12, keeps_model=True),
    Check(training.first_order, 12),
    Check(training.train_mezo, 15),
    Check(steps.step_30b, 60),
    Check(steps.step_66b, 90),
)


def main() -> int:
    """Run the chosen checks and return the exit code."""
    args = _parser().parse_args()
    if args.list:
        for check in CHECKS:
            print(f"{check.name:16} {check.description}")
        return 0
    if args.device == "cuda" and not torch.cuda.is_available():
        print("--device: given cuda; torch finds no GPU; use --device cpu --tiny", file=sys.stderr)
        return 2
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    machine = Machine(args.device, args.tiny, args.budget, args.began)
    chosen = [
        check
        for check in CHECKS
        if (not args.only or check.name in args.only) and check.name not in args.skip
    ]
    failed, show = args.failed, partial(_show, out=args.out, judge_speed=not args.tiny)
    if not args.again:
        first = about(machine, args.commit)
        _write(first, args.out)
        print(title(first), report.header(), sep="\n", file=sys.stderr, flush=True)
    for number, check in enumerate(chosen, start=1):
        needed = 0 if args.tiny else check.seconds
        if machine.seconds_left() < needed:
            why = f"{machine.seconds_left():.0f} s left, {needed} s needed"
            show({"check": check.name, "skipped": why})
            continue
        line, device_lost = _run(check, machine)
        failed += line.get("ok") is False
        show(line)
        if device_lost and number < len(chosen):
            _start_anew(args, chosen[number:], failed)
    seconds = round(time.time() - args.began, 1)
    _write({"check": "done", "failed": failed, "s": seconds}, args.out)
    print(f"{failed} failed, {seconds:.0f} s", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="use tiny sizes and skip no check")
    parser.add_argument(
        "--only", type=_names, default=(), metavar="NAMES", help="run these, separated by commas"
    )
    parser.add_argument("--skip", type=_names, default=(), metavar="NAMES", help="do not run these")
    parser.add_argument(
        "--budget", type=float, default=470.0, metavar="SECONDS", help="for all; default: 470"
    )
    parser.add_argument(
        "--out",
        type=_folder,
        default=os.environ.get("OUT"),
        metavar="FOLDER",
        help="append the lines to gpu_check.jsonl in this folder; default: $OUT, if it is set",
    )
    parser.add_argument("--list", action="store_true", help="describe the checks")
    parser.add_argument("--commit", help="the project's commit, if this is a copy without git")
    # What a process that starts itself anew hands on.
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, default=BEGAN, help=argparse.SUPPRESS)
    parser.add_argument("--failed", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _names(text: str) -> tuple[str, ...]:
    allowed = [check.name for check in CHECKS]
    names = tuple(text.split(","))
    for name in names:
        if name not in allowed:
            raise argparse.ArgumentTypeError(f"given {name!r}; allowed: {', '.join(allowed)}")
    return names


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"given {text!r}; allowed: an existing folder")
    return Path(text)


def _run(check: Check, machine: Machine) -> tuple[Line, bool]:
    """Return the line of a check, and whether it left CUDA unusable."""
    if not check.keeps_model:
        machine.forget_model()
    began = time.perf_counter()
    line: Line = {"check": check.name}
    device_lost = False
    try:
        line |= check.run(machine)
    except Exception as error:  # whatever it is, the next check follows
        traceback.print_exc()
        line |= _failure(error)
        device_lost = "CUDA error" in str(error) or "AcceleratorError" in type(error).__name__
    line["s"] = round(time.perf_counter() - began, 1)
    if machine.is_cuda and not device_lost:
        try:
            line["peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
            torch.cuda.reset_peak_memory_stats()
            # After the except block, because the exception's frames refer to tensors.
            if line.get("ok") is False:
                machine.forget_model()
        except RuntimeError:
            traceback.print_exc()
            device_lost = True
    return line, device_lost


def _failure(error: Exception) -> Line:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = (str(error).splitlines() or [""])[0]
    return {
        "ok": False,
        "error": f"{type(error).__name__}: {message}"[:300],
        "at": f"{frame.filename.removeprefix(str(ROOT))}:{frame.lineno}",
    }


def _show(line: Line, out: Path | None, judge_speed: bool) -> None:
    _write(line, out)
    print(report.row(line, judge_speed), file=sys.stderr, flush=True)


def _write(line: Line, out: Path | None) -> None:
    text = json.dumps(line)
    print(text, flush=True)
    if out is not None:
        with (out / "gpu_check.jsonl").open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def _start_anew(args: argparse.Namespace, left: Sequence[Check], failed: int) -> None:
    """Replace this process by a new one for the checks that are left."""
    again = [
        "--again",
        f"--device={args.device}",
        f"--budget={args.budget}",
        f"--began={args.began}",
    ]
    again += [f"--failed={failed}", f"--only={','.join(check.name for check in left)}"]
    again += ["--tiny"] if args.tiny else []
    again += [f"--out={args.out}"] if args.out is not None else []
    os.execv(sys.executable, [sys.executable, __file__, *again])


if __name__ == "__main__":
    sys.exit(main())
