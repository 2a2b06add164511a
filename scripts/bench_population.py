"""Time one round of a layer-by-layer search: a population is scored for each layer in turn.

python scripts/bench_population.py --hidden 256
python scripts/bench_population.py --hidden 1024 --json population.json

In each turn, 20 candidates of low-rank modules on the queries and keys of one layer are scored on a
batch, while the other layers have the modules that were found for them. A round is a turn of each
layer. Three ways of doing the same work are timed, turn by turn and in changing order:

prefix     the fused engine: the hidden state that enters the searched layer is computed once, and
           carried to the next turn
full       as many plain forward passes of the model, without any modules
published  the operations of the published code: a forward pass for each candidate, in which every
           layer computes q = W x + (x A) B, and k likewise, with modules of its own

All three compute logits at one position of each row. The search itself is not timed. The losses of
the first and the last way are compared. The script needs only torch and transformers.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that a checkout works without an installed lozo_bench

from bench import memory, models, outputs, timing  # noqa: E402

from lozo_bench.engine import Draws, Folder, Fused, MicroBatch, Subspace  # noqa: E402
from lozo_bench.engine.subspace import Coordinates, along  # noqa: E402
from lozo_bench.errors import UserError  # noqa: E402
from lozo_bench.models.answers import only_positions  # noqa: E402

CPU = torch.device("cpu")
MODES = ("prefix", "full", "published")
_COUNTS = (
    "layers",
    "hidden",
    "vocab",
    "rows",
    "tokens",
    "rank",
    "population",
    "repeats",
    "threads",
)
_QUICK = {
    "layers": 3, "hidden": 64, "vocab": 100, "rows": 4, "tokens": 6, "rank": 2, "population": 3,
    "repeats": 1,
}  # fmt: skip
# The factors A [population, width, rank] and B [population, rank, width] of a layer's q and k.
Population = Mapping[str, tuple[Tensor, Tensor]]


def main() -> int:
    """Measure and print. Return the exit code: 2 for a user's mistake."""
    args = _parser().parse_args()
    if args.quick:
        vars(args).update(_QUICK)
    try:
        _check(args)
        torch.set_num_threads(args.threads)
        found = measure(args)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(found))
    print(json.dumps(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings, the versions and the numbers of each mode."""
    sizes = models.KNOWN["roberta-large"].overridden(args.layers, args.hidden, args.vocab)
    model = models.random_model(models.config_of("roberta-large", sizes), torch.float32, CPU)
    job = Job(model, args.rows, args.tokens, args.population, args.rank)
    ways: dict[str, Way] = {"prefix": Prefix(job), "full": Full(job), "published": Published(job)}
    for way in ways.values():  # warms up, and lets the engine check itself
        way.turn(1)
        way.forget()
    wall: dict[str, list[float]] = {name: [] for name in MODES}
    cpu: dict[str, list[float]] = {name: [] for name in MODES}
    apart = 0.0
    for repeat in range(args.repeats):
        for each in (wall, cpu):
            for times in each.values():
                times.append(0.0)
        for i in range(args.layers):
            losses = {}
            shift = (repeat + i) % len(MODES)
            for name in (*MODES[shift:], *MODES[:shift]):
                took = timing.timed(lambda: losses.update({name: ways[name].turn(i)}), CPU)  # noqa: B023
                wall[name][-1] += took[0] / 1e3
                cpu[name][-1] += took[1] / 1e3
            apart = max(apart, float((losses["prefix"] - losses["published"]).abs().max()))
    if apart > 1e-4:
        raise RuntimeError(f"the losses of prefix and published differ by {apart:.1e}")
    peaks = {name: way.peak_bytes() for name, way in ways.items()}
    return {
        **{key: getattr(args, key) for key in _COUNTS},
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "largest_difference_of_losses": apart,
        "load": os.getloadavg()[0],
        "modes": {name: _row(name, wall, cpu, peaks[name]) for name in MODES},
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the measured numbers as text."""
    lines = [
        f"RoBERTa, {found['layers']} layers of {found['hidden']}, {found['rows']} rows of "
        f"{found['tokens']} tokens, {found['population']} candidates of rank {found['rank']}; "
        f"a round is {found['layers'] * found['population']} candidates",
        f"{'':10} {'seconds':>8} {'(range)':>16} {'of full':>8} {'of published':>13} "
        f"{'CPU of full':>12} {'of published':>13} {'peak MiB':>9}",
    ]
    for name, row in found["modes"].items():
        spread = f"({row['s_min']:.1f} to {row['s_max']:.1f})"
        lines.append(
            f"{name:10} {row['s_median']:8.1f} {spread:>16} {row['of_full']:8.3f} "
            f"{row['of_published']:13.3f} {row['cpu_of_full']:12.3f} "
            f"{row['cpu_of_published']:13.3f} {row['peak_MiB']:9.0f}"
        )
    return "\n".join(lines)


class Job:
    """A model, a batch, and for each layer a population and the modules that are kept.

    Args:
        model: a RoBERTa with random weights.
        rows: how many rows the batch has.
        tokens: how many tokens the longest row has; others have up to a quarter less.
        population: how many candidates each turn has.
        rank: of the modules.
    """

    def __init__(
        self, model: nn.Module, rows: int, tokens: int, population: int, rank: int
    ) -> None:
        self.model, self.K, self.rank = model, population, rank
        draws, config = Draws(0), cast(Any, model.config)
        self.layers = config.num_hidden_layers
        ids = draws.uniform_range("ids", 0, "ids", 0, rows * tokens).view(rows, tokens)
        self.ids = (ids * (config.vocab_size - 5)).long() + 5
        lengths = torch.tensor([tokens - row % (1 + tokens // 4) for row in range(rows)])
        self.mask = (torch.arange(tokens) < lengths[:, None]).long()
        self.ids[self.mask == 0] = config.pad_token_id
        h = config.hidden_size
        shapes = {"A": (population, h, rank), "B": (population, rank, h)}
        # Modules change q and k by about 1 at any width. With much larger ones, each position
        # attends to a single other one, and rounding decides to which.
        scale = (rank * h) ** -0.25
        self.candidates: list[Population] = []
        for i in range(self.layers):
            prefix = f"roberta.encoder.layer.{i}.attention.self."
            drawn = {kind: draws.normal(kind, i, shapes) for kind in ("query", "key")}
            self.candidates.append(
                {
                    f"{prefix}{kind}.weight": (scale * both["A"], scale * both["B"])
                    for kind, both in drawn.items()
                }
            )

    def losses(self, model: nn.Module, copies: int = 1) -> Tensor:
        """Return the losses of the rows, [copies, rows]."""
        rows, T = self.ids.shape
        read = torch.arange(copies * rows) * T
        with only_positions(model, read):
            ids, mask = self.ids.repeat(copies, 1), self.mask.repeat(copies, 1)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0]
        labels = torch.arange(rows).remainder(2).repeat(copies)
        return F.cross_entropy(logits, labels, reduction="none").view(copies, rows)


class Way:
    """One way of scoring a population; keeps the first candidate of each turn."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def turn(self, i: int) -> Tensor:
        """Score the population of layer i and return its losses [K, rows]."""
        raise NotImplementedError

    def forget(self) -> None:
        """Go back to a model without modules."""

    def memory_run(self) -> None:
        """Run what takes the most memory."""
        self.turn(1)

    def peak_bytes(self) -> int:
        """Return the peak of the bytes of tensors, weights included."""
        self.forget()
        return memory.resident_bytes(self.job.model) + memory.peak_on_cpu(self.memory_run)


class Prefix(Way):
    """The fused engine, with the modules of the other layers as its adapter."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        X = {name: job.model.get_parameter(name) for each in job.candidates for name in each}
        self.engine = Fused(job.model, X, Folder("nearest", Draws(0)))
        tokens = job.ids.numel()
        losses: Callable[[int], Tensor] = lambda copies: job.losses(job.model, copies)  # noqa: E731
        self.batch = [MicroBatch(len(job.ids), tokens, losses, key="batch")]
        self.kept: dict[int, Population] = {}

    def turn(self, i: int) -> Tensor:
        """See `Way`."""
        self._set({j: kept for j, kept in self.kept.items() if j != i})
        P, K, r = self._subspace([self.job.candidates[i]]), self.job.K, self.job.rank
        C = torch.zeros(K, K * r, K * r, dtype=torch.float64)
        for k in range(K):
            C[k, k * r : (k + 1) * r, k * r : (k + 1) * r] = torch.eye(r)
        losses = self.engine.losses(P, Coordinates(C, torch.zeros(K, 0).double()), self.batch)
        first = {name: (A[:1], B[:1]) for name, (A, B) in self.job.candidates[i].items()}
        self.kept[i] = first
        self._set(self.kept)
        return losses

    def forget(self) -> None:
        """See `Way`."""
        self.kept = {}
        self._set({})

    def memory_run(self) -> None:
        """See `Way`."""
        self.turn(0)
        self.turn(1)

    def _set(self, kept: Mapping[int, Population]) -> None:
        P = self._subspace(list(kept.values()))
        r = self.job.rank
        at = along(P, 1.0) if kept else Coordinates(torch.eye(r).double(), torch.zeros(0).double())
        self.engine.set_adapter(P, at)

    def _subspace(self, populations: list[Population]) -> Subspace:
        """Return factors with U V^T = (A B)^T for each candidate, side by side."""
        U, V = {}, {}
        for population in populations:
            for name, (A, B) in population.items():
                U[name], V[name] = B.flatten(0, 1).T.contiguous(), A.mT.flatten(0, 1).T.contiguous()
        return Subspace(U, V, {})


class Full(Way):
    """Plain forward passes."""

    def turn(self, i: int) -> Tensor:
        """See `Way`."""
        with torch.inference_mode():
            return torch.cat([self.job.losses(self.job.model) for _ in range(self.job.K)])

    def memory_run(self) -> None:
        """See `Way`."""
        with torch.inference_mode():
            self.job.losses(self.job.model)


class Published(Way):
    """Modules of its own for q and k in every layer, and a forward pass for each candidate."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.model = copy.deepcopy(job.model)
        self.modules: list[dict[str, LowRank]] = []
        for population in job.candidates:
            here = {}
            for name in population:
                path, _, kind = name.removesuffix(".weight").rpartition(".")
                attention = self.model.get_submodule(path)
                here[name] = LowRank(attention.get_submodule(kind), job.rank)
                setattr(attention, kind, here[name])
            self.modules.append(here)

    def turn(self, i: int) -> Tensor:
        """See `Way`."""
        losses = [self._score(i, k) for k in range(self.job.K)]
        self._load(i, 0)
        return torch.cat(losses)

    def forget(self) -> None:
        """See `Way`."""
        for here in self.modules:
            for module in here.values():
                module.A.zero_()
                module.B.zero_()

    def memory_run(self) -> None:
        """See `Way`."""
        self._score(1, 0)

    def _score(self, i: int, k: int) -> Tensor:
        self._load(i, k)
        with torch.inference_mode():
            return self.job.losses(self.model)

    def _load(self, i: int, k: int) -> None:
        for name, (A, B) in self.job.candidates[i].items():
            self.modules[i][name].A.copy_(A[k])
            self.modules[i][name].B.copy_(B[k])


class LowRank(nn.Module):
    """A linear layer plus a low-rank module: W x + b + (x A) B."""

    A: Tensor
    B: Tensor

    def __init__(self, linear: nn.Module, rank: int) -> None:
        super().__init__()
        self.linear = linear
        width, inner = cast(nn.Linear, linear).weight.shape
        self.register_buffer("A", torch.zeros(inner, rank))
        self.register_buffer("B", torch.zeros(rank, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output with the module's added to it."""
        plain: Tensor = self.linear(x)
        return plain + (x @ self.A) @ self.B


def _row(
    name: str, wall: Mapping[str, list[float]], cpu: Mapping[str, list[float]], peak: int
) -> dict[str, float]:
    """Return a mode's numbers; ratios are taken within each repeat."""

    def ratio(times: Mapping[str, list[float]], to: str) -> float:
        return median(a / b for a, b in zip(times[name], times[to], strict=True))

    return {
        "s_median": median(wall[name]),
        "s_min": min(wall[name]),
        "s_max": max(wall[name]),
        "of_full": ratio(wall, "full"),
        "of_published": ratio(wall, "published"),
        "cpu_of_full": ratio(cpu, "full"),
        "cpu_of_published": ratio(cpu, "published"),
        "peak_MiB": peak / 2**20,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=256, help="heads are 64 wide, ffn 4 x hidden")
    parser.add_argument("--vocab", type=int, default=50265)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=27, help="of the longest row; 24 on average")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--json", type=outputs.file, help="the file for the numbers")
    return parser


def _check(args: argparse.Namespace) -> None:
    for key in _COUNTS:
        if getattr(args, key) < 1:
            raise UserError(f"--{key}: given {getattr(args, key)}; allowed: a whole number >= 1")
    if args.layers < 2:
        raise UserError("--layers: given 1; allowed: a whole number >= 2")
    if args.hidden % 64:
        raise UserError(f"--hidden: given {args.hidden}; allowed: a multiple of 64")


if __name__ == "__main__":
    sys.exit(main())
