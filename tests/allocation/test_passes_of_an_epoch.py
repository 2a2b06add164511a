"""What an allocation costs in a run of the size of MRPC, and that the loop counts it."""

from __future__ import annotations

import pytest
import torch
from gated_models import OPTIONS, stack

from lozo_bench.allocation.allocate import ByScore
from lozo_bench.allocation.base import Length
from lozo_bench.config.schema import Schedule, Select
from lozo_bench.data.batch import BatchLayout
from lozo_bench.data.sets import Data
from lozo_bench.engine.in_place import InPlace
from lozo_bench.evaluation.evaluators import OptionEvaluator
from lozo_bench.objectives.losses import OptionObjective, classification
from lozo_bench.optimizers.base import Needs, Report
from lozo_bench.randomness.draws import Draws
from lozo_bench.runs.history import History
from lozo_bench.runs.journal import Log
from lozo_bench.tasks.base import Encoded
from lozo_bench.training.interfaces import Components, Settings, SilentObserver
from lozo_bench.training.rows import TrainingRows
from lozo_bench.training.trainer import Trainer

LAYOUT = BatchLayout(pad_id=0, label_ids=(0, 1))
CPU = torch.device("cpu")
ROWS, STEPS = 3668, 459


class Differentiates:
    """An optimizer with one forward and one backward pass a step."""

    needs = Needs(gradient=True, replayable=False)
    lr = 0.0

    def step(self, score):
        return Report(score.differentiate(), forwards=1, backwards=1)


class Notes(SilentObserver):
    """Keeps at which steps modules were allocated."""

    def __init__(self):
        self.steps = []

    def happened(self, step, event):
        self.steps.append(step)


@pytest.mark.parametrize(
    ("score", "backwards"),
    [
        ("separate", 459 + 5 * 32),
        ("online", 459),  # as without an allocation
    ],
)
def test_the_passes_of_an_epoch_of_mrpc(score, backwards):
    tuned = stack(layers=1, width=2, r=1)
    engine = InPlace(tuned.X, tuned.model, tuned.extras)
    allocation = ByScore(**OPTIONS | {"every": 0.2, "batches": 32, "budget": 0.5, "score": score})
    tuning = type("Gated", (), {"gated": True})()
    rows = TrainingRows(ROWS, 8, 0, allocation.needs(Differentiates.needs, tuning))
    epochs = {name: -(-count // size) for name, (count, size) in rows.sizes().items()}
    assert epochs[""] == STEPS
    length = Length(STEPS, epochs)
    optimizer = allocation.around(Differentiates(), engine, tuned, Draws(0), length)

    def scorer(batch):
        return tuned.model(torch.full((len(batch.labels), 1), 3)).logits

    evaluator = OptionEvaluator(scorer, LAYOUT, CPU, classification)
    examples = [Encoded(rows=((1,),), answer=((0,),), label=i % 2) for i in range(ROWS)]
    notes = Notes()
    parts = Components(
        engine,
        optimizer,
        OptionObjective(scorer, LAYOUT, CPU),
        dict.fromkeys(("zero_shot", "dev", "test"), evaluator),
        Data(examples, examples[:1], examples[:1], LAYOUT),
        rows,
        Settings(STEPS, 4, STEPS, STEPS, Schedule.constant, Select.last, 3),
        CPU,
    )
    trainer = Trainer(parts, history=History(Log(), None, 0), observer=notes)
    spent = trainer.run().spent
    assert spent.backwards == spent.forwards == backwards
    assert notes.steps == [1, 93, 185, 277, 369]
