"""A whole run on meta tensors, whose bytes are counted as if they were on a GPU and in its host.

Meta tensors have shapes and no data, so a model of any size runs on any machine. Every loss is the
same number, but each evaluation is given a better dev loss than the one before, up to the one that
shall be the best.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from bench import models
from gpu.counting import AttentionCounter, LaunchCounter, triton_kernels
from torch import Tensor, nn

from lozo_bench.config.schema import Schedule, Select
from lozo_bench.data.batch import BatchLayout
from lozo_bench.data.sets import Data
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import along
from lozo_bench.evaluation.evaluate import Metrics, evaluate
from lozo_bench.evaluation.evaluators import OptionEvaluator
from lozo_bench.objectives.losses import OptionObjective, classification
from lozo_bench.objectives.options import option_scorer
from lozo_bench.optimizers.base import Report
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.optimizers.mezo import Mezo
from lozo_bench.randomness.draws import Draws
from lozo_bench.runs.history import History
from lozo_bench.runs.journal import Log
from lozo_bench.tasks.base import Encoded
from lozo_bench.training.batcher import Batcher
from lozo_bench.training.interfaces import Components, Settings, SilentObserver
from lozo_bench.training.rows import TrainingRows
from lozo_bench.training.trainer import Trainer
from peak.live import Live
from peak.phases import Phases

META = torch.device("meta")
LR, EPS, RANK, MAX_RANK = 1e-6, 1e-3, 2, 32
EVALUATIONS = 4  # of which the second is the best one


@dataclass(frozen=True, slots=True)
class Batches:
    """The sizes of the batches: examples, tokens in a row, and options of an example."""

    examples: int
    tokens: int
    options: int


@dataclass(frozen=True, slots=True)
class Counted:
    """The peaks of a run in bytes, beyond the weights.

    Args:
        weights: the bytes of the weights.
        two_losses: the peak of two bare forward passes of the step's batch, one after another.
        evaluation: the peak of a bare evaluation.
        phases: the peaks of the run by phase, on the GPU and in the host.
        calls: how often each phase came.
    """

    weights: int
    two_losses: int
    evaluation: int
    phases: dict[str, Counter[str]]
    calls: Counter[str]


def count(
    name: str, optimizer: str, batches: Batches, layers: int | None = None, scored: int = 9
) -> Counted:
    """Count a run of a model in bfloat16, all of whose weights are trained.

    Its periods are folded twice, with ``MAX_RANK`` columns: before and after its best step.

    Args:
        name: the model, a key of `bench.models.KNOWN`.
        optimizer: ``lozo`` or ``mezo``.
        batches: of steps and of evaluations.
        layers: of the model; None: as published.
        scored: one of so many steps has two losses. The others only move, which is faster.
    """
    config = models.config_of(name, models.KNOWN[name].overridden(layers, None, None))
    model = models.random_model(config, torch.bfloat16, META)
    live = Live()
    live.leave_out([*model.parameters(), *model.buffers()])
    phases = Phases(live.take)
    with _counting(live, batches), phases.watching():
        parts = _components(model, optimizer, batches, scored)
        bare = _bare(parts, phases)
        history = History(Log(), None, 0)
        Trainer(parts, history=history, observer=SilentObserver(), scratch=Path()).run()
    weights = {x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in model.parameters()}
    return Counted(sum(weights.values()), *bare, phases.peaks, phases.calls)


class Sparing:
    """An optimizer of which most steps only move the weights, in a period of their own."""

    def __init__(self, engine: Fused, scored: int) -> None:
        self._lozo = Lozo(engine, Draws(0), lr=LR, eps=EPS, rank=RANK, nu=1)
        self.needs, self.lr, self._scored = self._lozo.needs, LR, scored

    def step(self, score: Score) -> Report:
        """Make a step."""
        lozo = self._lozo
        if lozo.t % self._scored == 0:
            return lozo.step(score)
        P = lozo.directions.draw(lozo.t)
        lozo.engine.move(P, along(P, LR))
        lozo.t += 1
        return Report(0.0, forwards=0)


class Improving(OptionEvaluator):
    """An evaluator whose loss falls until the second evaluation."""

    seen = 0

    def metrics(self, found: Tensor, examples: Sequence[Encoded]) -> Metrics:
        """Return made-up metrics."""
        self.seen += 1
        return Metrics({"accuracy": 0.5, "loss": 1.0 + abs(self.seen - 2)})


def _components(model: nn.Module, name: str, batches: Batches, scored: int) -> Components:
    X = dict(model.named_parameters())
    engine: Any = InPlace(X, model)
    optimizer: Any = Mezo(engine, Draws(0), lr=LR, eps=EPS)
    steps = 2 * EVALUATIONS
    if name == "lozo":
        engine = Fused(model, X, Folder("stochastic", Draws(0)), MAX_RANK)
        optimizer = Sparing(engine, scored)
        steps = 2 * (MAX_RANK // RANK + 1) + 2  # a period has one step
    layout = BatchLayout(pad_id=1)
    rows = tuple((5,) * (batches.tokens - 1) + (6 + i,) for i in range(batches.options))
    answer = tuple((batches.tokens - 1,) for _ in rows)
    examples = [Encoded(rows, answer, label=0)] * batches.examples
    scorer = option_scorer(model, layout.scoring)
    other, dev = (
        kind(scorer, layout, META, classification) for kind in (OptionEvaluator, Improving)
    )
    return Components(
        engine,
        optimizer,
        OptionObjective(scorer, layout, META, classification),
        {"zero_shot": other, "dev": dev, "test": other},
        Data(examples, examples, examples, layout),
        TrainingRows(batches.examples, batches.examples, 0, optimizer.needs),
        Settings(
            steps, batches.examples, steps // EVALUATIONS, 1, Schedule.constant, Select.dev_loss, 3
        ),
        META,
        smooth=False,  # equal losses would be taken for those of a distance that is too small
    )


def _bare(parts: Components, phases: Phases) -> tuple[int, int]:
    """Return the peaks of two bare passes of the step's batch, and of a bare evaluation."""
    batch = Batcher(parts.data, parts.objective, None).batch(next(parts.rows.batches()))
    with phases.phase("two bare forward passes"), torch.inference_mode():
        for _ in range(2):
            for part in batch.parts:
                part.losses(1)
    with phases.phase("a bare evaluation"):
        evaluate(parts.evaluators["test"], parts.data.test, parts.settings.eval_batch_size)
    return tuple(
        phases.peaks.pop(name)["meta"] for name in ("two bare forward passes", "a bare evaluation")
    )  # type: ignore[return-value]


class _CountingLive(LaunchCounter):  # type: ignore[no-untyped-call]
    """Runs operations on meta tensors as `LaunchCounter` does, and counts the bytes they make."""

    def __init__(self, live: Live, distinct: int) -> None:
        super().__init__(distinct)
        self._live = live

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count what it makes."""
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self._live.hold(out, (args, kwargs))
        return out


class _NoHash:
    """Stands for a hash of gigabytes, which would take a minute."""

    def update(self, data: object) -> None: ...

    def copy(self) -> _NoHash:
        return self

    def hexdigest(self) -> str:
        return ""


class _NoFile:
    """Stands for a file of gigabytes."""

    def __init__(self, folder: Path, size: int) -> None: ...

    def write(self, data: memoryview, at: int) -> None: ...

    def read(self, into: memoryview, at: int) -> None: ...


@contextmanager
def _counting(live: Live, batches: Batches) -> Iterator[None]:
    """Inside this context, meta tensors are treated like tensors on a GPU, and counted."""
    counter = _CountingLive(live, batches.options)
    host = "lozo_bench.engine.to_host"
    with ExitStack() as stack:
        for name, instead in {
            f"{host}._is_on_gpu": lambda x: x.is_meta,
            f"{host}._buffer": lambda: torch.empty(2**26, dtype=torch.uint8),
            f"{host}._after_all": lambda device: None,
            "lozo_bench.engine.tensors.hashlib": SimpleNamespace(blake2b=lambda **_: _NoHash()),
            "lozo_bench.engine.host_memory.UnnamedFile": _NoFile,
        }.items():
            stack.enter_context(patch(name, instead))
        stack.enter_context(counter)
        stack.enter_context(AttentionCounter())
        stack.enter_context(triton_kernels(counter))
        yield
