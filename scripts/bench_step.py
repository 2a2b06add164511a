"""Time one training step of each mode, beside two forward passes and the published schemes.

python scripts/bench_step.py --model opt-1.3b --random-init --dtype bf16 --device cuda \
    --batch 16 --length 200 --json step.json --plot step.png
python scripts/bench_step.py --model opt-125m --random-init --hidden 1024 --layers 2 --vocab 5000

two_forwards    the floor: two forward passes of the batch, with the logits of every position
fused           a LOZO step on the fused engine, with the same batch and logits
in_place        the same step on the engine that perturbs and restores the weights in place
published       the published LOZO scheme, reimplemented (scripts/bench/published.py)
published_mezo  the published MeZO scheme, reimplemented
answer_only     a LOZO step on the fused engine that computes only the logits that the loss needs

All modes are timed in one process, in turns. The script needs only torch, transformers and numpy
(and matplotlib for --plot). It downloads nothing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that a checkout works without an installed lozo_bench

from bench import memory, models, outputs, report, timing  # noqa: E402
from bench.modes import FLOOR, NU, Running, Work, check, modes, work  # noqa: E402

from lozo_bench.errors import UserError  # noqa: E402

_COUNTS = (
    "layers", "hidden", "vocab", "batch", "options", "rank", "candidates-per-forward", "repeats",
    "threads",
)  # fmt: skip


def main() -> int:
    """Measure, print and write. Return the exit code: 2 for a user's mistake, 130 for Ctrl-C."""
    args = _parser().parse_args()
    try:
        _check(args)
        torch.set_num_threads(args.threads)
        header, rows = measure(args)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    print(report.table(header, rows))
    if args.json:
        args.json.write_text(json.dumps({"header": header, "rows": rows}, indent=1) + "\n")
    if args.plot:
        report.plot(header, rows, args.plot)
    return 0


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], list[report.Row]]:
    """Return the header and a row for each mode that fits into memory."""
    job, device, max_rank = _work(args), torch.device(args.device), _max_rank(args)
    starts = modes(job, args.rank, max_rank, args.candidates_per_forward)
    header = _header(args, job, max_rank)
    running = _started(starts, header["left_out"], device)
    times = timing.interleaved(running, args.repeats, device)
    fold_ms = {name: timing.folds(mode, device) for name, mode in running.items()}
    running.clear()  # what one mode keeps would count in the memory of another
    rows = []
    for name, of_mode in times.items():
        peak = memory.peak_bytes(job.model, starts[name])
        row = report.row(name, of_mode, times[FLOOR], peak, job.tokens)
        if fold_ms[name]:
            row["fold_ms"] = median(fold_ms[name])
            row["fold_every"] = NU * (1 + max_rank // args.rank)
        rows.append(row)
    return header, rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(models.KNOWN)
    parser.add_argument("--model", required=True, help=f"a folder with a model, or one of: {known}")
    parser.add_argument("--random-init", action="store_true", help="use random weights")
    parser.add_argument("--layers", type=int, help="replaces the named model's number of layers")
    parser.add_argument(
        "--hidden", type=int, help="replaces its width; heads are 64 wide, ffn is 4 x hidden"
    )
    parser.add_argument("--vocab", type=int, help="replaces its vocabulary size")
    parser.add_argument("--batch", type=int, default=16, help="examples in the batch")
    parser.add_argument("--length", type=int, default=200, help="tokens in each row")
    parser.add_argument("--options", type=int, default=1, help="answer options of each example")
    parser.add_argument("--dtype", choices=models.DTYPES, default="fp32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument(
        "--max-rank",
        type=int,
        help="columns of closed periods kept before a fold; default: 32 in half precision, else 0",
    )
    parser.add_argument(
        "--candidates-per-forward",
        type=int,
        help="1: a pass for each candidate (least memory); default: the engine chooses",
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument(
        "--json", type=outputs.file, help="the file to which header and rows are written"
    )
    parser.add_argument(
        "--plot", type=outputs.picture, help="the picture: a .png, .svg or .pdf file"
    )
    return parser


def _check(args: argparse.Namespace) -> None:
    for key in _COUNTS:
        value = getattr(args, key.replace("-", "_"))
        if value is not None and value < 1:
            raise UserError(f"--{key}: given {value}; allowed: a whole number >= 1")
    if args.max_rank is not None and args.max_rank < 0:
        raise UserError(f"--max-rank: given {args.max_rank}; allowed: a whole number >= 0")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device: given cuda; torch finds no CUDA device; use --device cpu")
    named = args.model in models.KNOWN
    if named and not args.random_init:
        raise UserError(
            f"--model: the weights of {args.model} are not downloaded; add --random-init"
        )
    if not named and (args.layers or args.hidden or args.vocab):
        raise UserError(
            "--layers, --hidden, --vocab: allowed only if --model is a name, not a folder"
        )


def _work(args: argparse.Namespace) -> Work:
    sizes = models.KNOWN.get(args.model)
    if sizes is not None:
        sizes = sizes.overridden(args.layers, args.hidden, args.vocab)
    config = models.config_of(args.model, sizes)
    check(config, args.length, args.options)
    dtype, device = models.DTYPES[args.dtype], torch.device(args.device)
    if args.random_init:
        model = models.random_model(config, dtype, device)
    else:
        model = models.stored_model(args.model, dtype, device)
    return work(model, models.is_masked(config), args.batch, args.length, args.options)


def _max_rank(args: argparse.Namespace) -> int:
    given: int | None = args.max_rank
    if given is not None:
        return given
    return 0 if args.dtype == "fp32" else 32


def _header(args: argparse.Namespace, job: Work, max_rank: int) -> dict[str, Any]:
    config: Any = job.model.config
    return {
        "command": shlex.join(["python", "scripts/bench_step.py", *sys.argv[1:]]),
        "model": args.model,
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "vocab": config.vocab_size,
        "parameters": sum(x.numel() for x in job.X.values()),
        "weight_bytes": memory.resident_bytes(job.model),
        "batch": args.batch,
        "rows": job.tokens // args.length,
        "length": args.length,
        "options": args.options,
        "dtype": args.dtype,
        "device": args.device,
        "device_name": report.device_name(torch.device(args.device)),
        "rank": args.rank,
        "nu": NU,
        "max_rank": max_rank,
        "candidates_per_forward": args.candidates_per_forward,
        "repeats": args.repeats,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "left_out": {},
    }


def _started(
    starts: Mapping[str, Callable[[], Running]], left_out: dict[str, str], device: torch.device
) -> dict[str, Running]:
    """Return each mode after its first step.

    Modes that do not fit into the GPU's memory are omitted and recorded in ``left_out``.
    """
    running = {}
    for name, start in starts.items():
        try:
            mode = start()
            timing.timed(mode.step, device)
            mode.after()
        except torch.cuda.OutOfMemoryError as error:
            if name == FLOOR:
                raise UserError(f"--model, --batch: too large for the GPU: {error}") from error
            left_out[name] = "it does not fit into the GPU's memory"
            torch.cuda.empty_cache()
        else:
            running[name] = mode
    return running


if __name__ == "__main__":
    sys.exit(main())
