"""The command ``lozo-export RUN``: write the model of a run, at any of its steps.

The steps are made again from the recorded losses, without forward passes. A first-order run can
be exported at the steps of which it kept a state, such as the tested one.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

from lozo_bench.errors import UserError, counted
from lozo_bench.runs.hydra_files import is_cell
from lozo_bench.runs.outcome import Code
from lozo_bench.runs.status import statuses_below

MODEL = "model"  # the folder of a run's model, inside the run's folder


def main() -> None:
    """Export a run. The exit code is 2 if that is impossible; one line then says why."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        print(export(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(Code.bad_input)


def export(arguments: argparse.Namespace) -> str:
    """Write the model and return the line that says what was written.

    Raises:
        UserError: there is no such run or step, or it has no such form.
    """
    out = _out(arguments)
    from lozo_bench.training.replay import rebuild
    from lozo_bench.training.stored import tested_step

    began = time.perf_counter()
    run: Path = arguments.run
    step = tested_step(run) if arguments.step is None else arguments.step
    if arguments.as_lora:
        from lozo_bench.after.update import export_as_lora

        line = export_as_lora(run, step, arguments.rank, arguments.device, out)
    else:
        rebuilt = rebuild(run, step, arguments.device)
        form = rebuilt.save(out, arguments.pruned, arguments.merge)
        line = f"step {step}: {form} in {out}; state {rebuilt.weights}"
    return f"{line}; {time.perf_counter() - began:.1f} s"


def _out(arguments: argparse.Namespace) -> Path:
    if arguments.rank is not None and not arguments.as_lora:
        raise UserError("--rank: it is the rank of --as-lora, which is not given")
    if arguments.as_lora and (arguments.merge or arguments.pruned):
        raise UserError("--as-lora: allowed: without --merge and --pruned")
    if not arguments.run.is_dir():
        raise UserError(f"{arguments.run}: there is no such folder; give the folder of a run")
    if not is_cell(arguments.run) and (runs := statuses_below(arguments.run)):
        raise UserError(
            f"{arguments.run}: it contains {counted(len(runs), 'run')}; give the folder of one, "
            f"such as {runs[0].folder}"
        )
    out: Path = arguments.out or arguments.run / MODEL
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"--out: {out} exists and is not an empty folder; what to do: remove it, or choose "
            "another one with --out DIR"
        )
    return out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lozo-export",
        description="Write the model of a run: a folder for transformers, or for peft if the run "
        "trained an adapter, a prefix or a prompt.",
        epilog="for example: lozo-export outputs/default/reviews/tiny_opt/lozo-r2-s0-DIGEST",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of the run")
    parser.add_argument("--step", type=int, help="the step; default: the one that was tested")
    parser.add_argument(
        "--merge", action="store_true", help="add the adapter to the weights: a plain model"
    )
    parser.add_argument(
        "--as-lora",
        action="store_true",
        help="write what the run changed in the weights as a LoRA adapter of the model it began "
        "with",
    )
    parser.add_argument(
        "--rank",
        type=int,
        metavar="R",
        help="of --as-lora; default: that of the update, if the method has low-rank ones",
    )
    parser.add_argument(
        "--pruned", action="store_true", help="write only the low-rank modules that are on"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; default: the device of the run")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/model")
    return parser


if __name__ == "__main__":
    main()
