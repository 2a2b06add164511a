"""Measure how much of a run's updates half-precision weights keep, for several ways to add them.

python scripts/precision.py --json precision.json --plot precision.png

Weights of standard deviation 0.02 receive LOZO's steps -lr g U V^T of rank 2. U is drawn anew at
each step, V every 50 steps; g has a random sign and a fixed size. D* is the displacement of the
weights by the same draws in float64. D is the displacement of the weights at which losses are
computed, which includes what is not yet folded.

    projection  <D, D*> / <D*, D*>: 1 is exact; less means that updates are lost
    error       ||D - D*|| / ||D*||: lost updates and noise together
    saved       the error after everything is folded: that of the half-precision weights alone

in_place      the published way: W + eps U V^T, - 2 eps U V^T, + eps U V^T, then the update
ideal         W + D* rounded once: no half-precision weights can be nearer to W + D*
fold          each period's steps are summed in float32 and folded (`lozo_bench/engine/fold.py`)
stack R       up to R columns of past periods are kept beside the weights, then all are folded
  half        only the older half is folded
  in bf16     the kept factors are stored in bfloat16

Memory is given relative to half-precision weights of width 5120, because factors take a large share
of the memory at small widths.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
# So that a checkout works without an installed lozo_bench.
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from bench import outputs  # noqa: E402

from lozo_bench.engine.fold import Folder, Rounding  # noqa: E402
from lozo_bench.randomness.draws import Draws  # noqa: E402

RANK, NU, EPS, STD = 2, 50, 1e-3, 0.02
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
WIDTH = 5120  # the width of OPT-13B, for which memory is reported
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "stochastic", "residual")
MEASURED = ("projection", "error", "saved_error", "ms_per_step")
Row = dict[str, Any]
Ends = tuple[Tensor, Tensor]  # D of the weights at which losses are computed, and of those saved
Factors = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Walk:
    """The draws and scalars of a run: W [m, n] in half precision, U, V, and the signs of g."""

    W: Tensor
    U: Tensor  # [steps, m, r]
    V: Tensor  # [periods, n, r]
    g: Tensor  # [steps]

    def first(self, steps: int) -> Walk:
        """Return the first ``steps`` steps of the run."""
        return Walk(self.W, self.U[:steps], self.V[: -(-steps // NU)], self.g[:steps])

    def sums(self, lr_g: float) -> list[Tensor]:
        """Return -lr sum_k g_k U_k for each period, float64 [m, r]."""
        periods = zip(torch.split(self.U, NU), torch.split(self.g, NU), strict=True)
        return [-lr_g * torch.einsum("kmr,k->mr", U.double(), g) for U, g in periods]


def walk(seed: int, size: int, steps: int, dtype: torch.dtype) -> Walk:
    """Return the draws of a run. A run of fewer steps has the first of the same draws."""
    draws, shape, periods = Draws(seed), (size, RANK), range(-(-steps // NU))
    W = STD * draws.normal("W", 0, {"W": (size, size)})["W"]
    U = torch.cat([draws.normal("U", p, {"U": (NU, *shape)})["U"] for p in periods])
    V = torch.stack([draws.normal("V", p, {"V": shape})["V"] for p in periods])
    g = draws.normal("g", 0, {"g": (steps,)}, dtype=torch.float64)["g"].sign()
    return Walk(W.to(dtype), U[:steps], V, g)


@dataclass(frozen=True, slots=True)
class Scheme:
    """A way to add steps to half-precision weights."""

    rounding: Rounding | None = None  # None for the schemes in_place and ideal
    max_rank: int = 0
    half: bool = False
    bf16_factors: bool = False
    in_place: bool = False

    @property
    def name(self) -> str:
        """The name of the scheme in the table."""
        if self.rounding is None:
            return "in_place" if self.in_place else "ideal"
        kind = f"stack {self.max_rank}" if self.max_rank else "fold"
        notes = " half" * self.half + " in bf16" * self.bf16_factors
        return f"{kind}{notes}, {self.rounding}"

    def bytes_per_weight(self) -> float:
        """Return the device memory that a scheme adds to each weight of a square matrix of WIDTH.

        It holds the sums of the open period and the stack of closed ones.
        """
        stack = 2 * self.max_rank * (2 if self.bf16_factors else 4)
        return (4 * RANK + stack) / WIDTH if self.rounding else 0.0

    def run(self, of: Walk, lr_g: float) -> Ends:
        """Apply all steps and return both displacements."""
        if self.rounding is not None:
            return _with_stack(self, self.rounding, of, lr_g)
        D = _in_place(of, lr_g) if self.in_place else _displacement(of, of.W + wanted(of, lr_g))
        return D, D


def schemes(max_ranks: Sequence[int]) -> list[Scheme]:
    """Return all schemes that are compared."""
    plain = [Scheme(rounding, R) for R in (0, *max_ranks) for rounding in ROUNDINGS]
    variants = [
        Scheme(rounding, R, half=half, bf16_factors=not half)
        for R, rounding, half in itertools.product(max_ranks, ROUNDINGS[1:], (True, False))
    ]
    return [Scheme(in_place=True), Scheme(), *plain, *variants]


def wanted(of: Walk, lr_g: float) -> Tensor:
    """Return D* in float64: the sum of A V^T over the periods."""
    A, V = torch.cat(of.sums(lr_g), dim=1), torch.cat(list(of.V), dim=1)
    return A @ V.double().T


def _in_place(of: Walk, lr_g: float) -> Tensor:
    """Apply each step as three perturbations and an update, in float32 rounded to W's dtype."""
    W, x = of.W.clone(), of.W.float()
    for k, (U, g) in enumerate(zip(of.U, of.g.tolist(), strict=True)):
        step = U @ of.V[k // NU].T
        for by in (EPS, -2 * EPS, EPS, -lr_g * g):
            W.copy_(x.add_(step, alpha=by))
            x.copy_(W)
    return _displacement(of, W)


def _with_stack(scheme: Scheme, rounding: Rounding, of: Walk, lr_g: float) -> Ends:
    """Apply the steps as the engine's `Point` does, or in a variant that the engine lacks."""
    W, folder, stack = of.W.clone(), Folder(rounding, Draws(0)), list[Factors]()
    kept = torch.bfloat16 if scheme.bf16_factors else torch.float32
    for A, V in zip(of.sums(lr_g), of.V, strict=True):
        stack.append((A.to(kept), V.to(kept)))
        if RANK * len(stack) > scheme.max_rank:
            count = -(-len(stack) // 2) if scheme.half else len(stack)
            folder.fold("W", W, *_side_by_side(stack[:count]))
            del stack[:count]
    D = _displacement(of, W)
    if stack:
        A, V = _side_by_side(stack)
        D += A.double() @ V.double().T
        folder.fold("W", W, A, V)
    return D, _displacement(of, W)


def _side_by_side(stack: list[Factors]) -> Factors:
    return torch.cat([A for A, _ in stack], dim=1), torch.cat([V for _, V in stack], dim=1)


def _displacement(of: Walk, W: Tensor) -> Tensor:
    return W.to(of.W.dtype).double() - of.W.double()


def measure(scheme: Scheme, of: Walk, lr_g: float) -> Row:
    """Measure one scheme and return a row of the JSON file."""
    start = time.perf_counter()
    D, saved = scheme.run(of, lr_g)
    ms = 1e3 * (time.perf_counter() - start) / len(of.g)
    goal = wanted(of, lr_g)
    return {
        "scheme": scheme.name,
        **asdict(scheme),
        "size": len(of.W),
        "steps": len(of.g),
        "lr_g": lr_g,
        "projection": float((D * goal).sum() / goal.square().sum()),
        "error": float((D - goal).norm() / goal.norm()),
        "saved_error": float((saved - goal).norm() / goal.norm()),
        "ms_per_step": ms,
        f"device_bytes_per_weight_at_{WIDTH}": scheme.bytes_per_weight(),
        "host_bytes_per_weight": 2 if scheme.rounding == "residual" else 0,
    }


def average(rows: list[Row]) -> list[Row]:
    """Return one row for all seeds of a scheme: the means and the farthest projection from 1."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["size"], row["steps"], row["lr_g"], row["scheme"]), []).append(row)
    return [
        group[0]
        | {key: mean(row[key] for row in group) for key in MEASURED}
        | {"farthest": max(abs(row["projection"] - 1) for row in group)}
        for group in groups.values()
    ]


def table(rows: list[Row]) -> str:
    """Return the rows as text, with a block for each size, number of steps and lr|g|."""
    columns = (
        f"{'':34}{'projection':>11}{'(farthest)':>11}{'error':>9}{'saved':>9}{'ms/step':>9}"
        f"{f'memory at {WIDTH}':>16}{'host':>7}"
    )
    lines = []
    for key, block in itertools.groupby(rows, lambda r: (r["size"], r["steps"], r["lr_g"])):
        lines += ["", _heading(*key), columns]
        lines += [
            f"{row['scheme']:34}{row['projection']:11.4f}{row['farthest']:11.4f}"
            f"{row['error']:9.4f}{row['saved_error']:9.4f}{row['ms_per_step']:9.3f}"
            f"{row[f'device_bytes_per_weight_at_{WIDTH}'] / 2:16.2%}"
            f"{row['host_bytes_per_weight'] / 2:7.0%}"
            for row in block
        ]
    return "\n".join(lines[1:])


def _heading(size: int, steps: int, lr_g: float) -> str:
    return f"{size} x {size}, {steps} steps, lr|g| = {lr_g:g}"


def plot(rows: list[Row], out: Path) -> None:
    """Plot the error of the saved weights over lr|g|, one panel for each number of steps.

    The variants ``half`` and ``in bf16`` are not drawn.
    """
    from matplotlib.figure import Figure

    drawn = [row for row in rows if not row["half"] and not row["bf16_factors"]]
    counts, ranks = (sorted({row[key] for row in drawn}) for key in ("steps", "max_rank"))
    figure = Figure(figsize=(2.5 + 4 * len(counts), 4.5), layout="constrained")
    panels = figure.subplots(1, len(counts), squeeze=False)
    dashes = {"nearest": ":", "stochastic": "-", "residual": "--"}
    for axes, steps in zip(panels[0], counts, strict=True):
        for name in dict.fromkeys(row["scheme"] for row in drawn):
            curve = [row for row in drawn if (row["scheme"], row["steps"]) == (name, steps)]
            points = sorted((row["lr_g"], row["saved_error"]) for row in curve)
            rounding, rank = curve[0]["rounding"], curve[0]["max_rank"]
            style = {"linestyle": dashes[rounding]} if rounding else {"linewidth": 3, "alpha": 0.4}
            colour = f"C{ranks.index(rank)}" if rounding else ("C3" if name == "in_place" else "k")
            axes.plot(*zip(*points, strict=True), label=name, color=colour, marker=".", **style)
        axes.set(xscale="log", yscale="log", xlabel="lr |g|", title=f"{steps} steps")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("error of the saved weights / displacement")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    figure.savefig(out, dpi=120)


def main() -> int:
    """Measure, print and write. Return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", default=[2000, 20000], type=_count, nargs="+")
    parser.add_argument(
        "--sizes",
        default=[256],
        type=_count,
        nargs="+",
        help="widths of the square weight matrices",
    )
    parser.add_argument("--seeds", default=2, type=_count, help="number of seeds")
    parser.add_argument("--max-ranks", default=[16, 32, 64, 128], type=_count, nargs="+")
    parser.add_argument(
        "--lr-g", default=[1e-5, 1e-6], type=_positive, nargs="+", help="values of lr |g|"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument(
        "--json",
        type=outputs.file,
        help="the file to which the rows are written, one for each seed",
    )
    parser.add_argument(
        "--plot",
        type=outputs.picture,
        help="the picture: a .png, .svg or .pdf file; needs matplotlib",
    )
    args = parser.parse_args()
    try:
        means = average(rows := measure_all(args))
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    print(table(means))
    if args.json:
        args.json.write_text(json.dumps([{"dtype": args.dtype} | row for row in rows], indent=1))
    if args.plot:
        plot([row for row in means if row["size"] == args.sizes[0]], args.plot)
    return 0


def measure_all(args: argparse.Namespace) -> list[Row]:
    """Return rows ordered by size, steps and lr|g| (as given), then by scheme, then by seed."""
    rows: list[Row] = []
    for size in args.sizes:
        runs = [walk(seed, size, max(args.steps), DTYPES[args.dtype]) for seed in range(args.seeds)]
        for steps, lr_g in itertools.product(args.steps, args.lr_g):
            print(f"{_heading(size, steps, lr_g)} ...", file=sys.stderr)
            for scheme, (seed, run) in itertools.product(schemes(args.max_ranks), enumerate(runs)):
                rows.append({"seed": seed} | measure(scheme, run.first(steps), lr_g))
    return rows


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"given {text!r}; allowed: a whole number >= 1")
    return int(text)


def _positive(text: str) -> float:
    if float(text) > 0:
        return float(text)
    raise argparse.ArgumentTypeError(f"given {text!r}; allowed: a number > 0")


if __name__ == "__main__":
    sys.exit(main())
