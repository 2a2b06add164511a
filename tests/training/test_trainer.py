"""The training loop: what it counts and reports, and which step it tests."""

from __future__ import annotations

import math

import pytest
import torch

from lozo_bench.config.schema import Schedule, Select
from lozo_bench.data.batch import BatchLayout
from lozo_bench.data.sets import Data
from lozo_bench.engine import InPlace, Subspace
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluators import OptionEvaluator
from lozo_bench.objectives.losses import OptionObjective, classification
from lozo_bench.optimizers.base import Needs, Report
from lozo_bench.runs.history import History
from lozo_bench.runs.journal import Log
from lozo_bench.tasks.base import Encoded
from lozo_bench.training.interfaces import Components, Settings
from lozo_bench.training.rows import TrainingRows
from lozo_bench.training.trainer import Trainer

LAYOUT = BatchLayout(pad_id=0, label_ids=(0, 1))
EXAMPLES = [Encoded(rows=((1,),), answer=((0,),), label=i % 2) for i in range(6)]


CPU = torch.device("cpu")


def aims(scorer):
    """Return a classification objective with these scores, and its evaluators."""
    evaluator = OptionEvaluator(scorer, LAYOUT, CPU, classification)
    evaluators = dict.fromkeys(("zero_shot", "dev", "test"), evaluator)
    return OptionObjective(scorer, LAYOUT, CPU), evaluators


class Counter:
    """An optimizer that adds one to the only weight in each step and computes the loss once."""

    needs = Needs()

    def __init__(self, X, lr=1.0):
        self.X, self.lr, self.lrs = X, lr, []

    def step(self, score):
        loss = float(torch.cat([part.losses(1)[0] for part in score.parts]).mean())
        self.X.X["w"] += 1
        self.lrs.append(self.lr)
        return Report(loss, forwards=3, backwards=2, scalars={"projected_grad": 0.5})


class Notes:
    """An observer that keeps everything it receives."""

    def __init__(self):
        self.rows, self.steps, self.evaluations, self.skips, self.events = [], [], [], [], []
        self.doubts = []

    def stepped(self, row):
        self.rows.append(dict(row))

    def advanced(self, step, loss):
        self.steps.append(step)

    def skipped(self, step, why):
        self.skips.append((step, why))

    def happened(self, step, event):
        self.events.append((step, event.name, dict(event.values)))

    def doubted(self, why):
        self.doubts.append(why)

    def evaluating(self, name, done, of):
        pass

    def evaluated(self, step, name, metrics, costs):
        assert costs["forward_passes"] == 3 * step or name == "test"
        self.evaluations.append((step, name, metrics.main))


def train(scores_at, steps=6, **changes):
    """Train with scores that depend on the step: each row has the scores scores_at(step)."""
    X = InPlace({"w": torch.zeros(())})
    settings = Settings(
        **{
            "steps": steps,
            "eval_batch_size": 4,
            "eval_every": 2,
            "log_every": 4,
            "schedule": Schedule.constant,
            "select": Select.dev_metric,
            "max_bad_steps": 3,
        }
        | changes
    )
    notes, optimizer = Notes(), Counter(X)
    objective, evaluators = aims(
        lambda batch: torch.tensor([scores_at(float(X.X["w"]))] * len(batch.labels))
    )
    data = Data(EXAMPLES, EXAMPLES[:1], EXAMPLES[:2], LAYOUT)
    rows = TrainingRows(len(EXAMPLES), 4, 0, Needs())
    parts = Components(X, optimizer, objective, evaluators, data, rows, settings, CPU)
    trainer = Trainer(parts, history=History(Log(), None, 0), observer=notes)
    return trainer.run(), notes, optimizer, X


def confident(step):
    """Correct about class 0 only at step 4, and least wrong about it at step 6."""
    return [1.0, 0.0] if step == 4 else [-0.1 if step == 6 else -5.0, 0.0]


@pytest.mark.parametrize(("patience", "last"), [(None, 12), (1, 6), (2, 8), (5, 12)])
def test_a_run_without_a_better_dev_for_long_enough_ends(patience, last):
    """Step 4 is the best one; dev is evaluated after every second step."""
    outcome, notes, _, _ = train(confident, steps=12, patience=patience)
    assert (outcome.best_step, outcome.steps) == (4, last)
    assert outcome.spent.forwards == 3 * last
    assert [step for step, name, _ in notes.evaluations if name == "dev"][-1] == last


@pytest.mark.parametrize(("max_queries", "last"), [(None, 6), (1, 1), (20, 1), (21, 2), (70, 5)])
def test_a_run_ends_with_the_step_that_reaches_its_queries(max_queries, last):
    """Batches have 4 and 2 of 6 rows; a step makes 3 forward and 2 backward passes: 20, 30, 50."""
    outcome, notes, _, _ = train(confident, max_queries=max_queries)
    assert outcome.steps == last
    assert outcome.stopped_by == ("" if max_queries is None else f"max_queries={max_queries}")
    assert [step for step, name, _ in notes.evaluations if name == "dev"][-1] == last


def test_a_run_ends_with_the_step_that_reaches_its_seconds():
    outcome, _, _, _ = train(confident, steps=10**6, max_seconds=0.05)
    assert outcome.stopped_by == "max_seconds=0.05"
    assert 0.05 <= outcome.spent.train_s < 1
    assert outcome.steps < 10**6


def test_passes_examples_and_tokens_are_counted():
    outcome, notes, _, _ = train(confident)
    assert (outcome.spent.forwards, outcome.spent.backwards) == (18, 12)
    assert outcome.spent.tokens == 3 * (
        4 + 2 + 4 + 2 + 4 + 2
    )  # batches of 4 and 2 rows of one token
    assert [(row["step"], row["forward_passes"], row["examples"]) for row in notes.rows] == [
        (4, 12, 12),
        (6, 18, 18),
    ]


def test_a_row_has_the_fields_of_the_file_format():
    _, notes, _, _ = train(confident)
    assert set(notes.rows[0]) == {
        "step", "loss", "projected_grad", "lr", "forward_passes", "examples", "bad_steps",
        "elapsed_s", "backward_passes", "queries", "tokens",
    }  # fmt: skip


def test_a_run_that_did_not_move_or_was_destroyed_says_so():
    (still,) = train(lambda step: [1.0, 0.5], steps=10)[1].doubts
    assert "has hardly moved in 10 steps" in still
    early, late = train(lambda step: [1.0, 0.5], steps=20, eval_every=4)[1].doubts
    assert early.startswith("step 12: the dev loss has hardly moved")
    assert "has hardly moved in 20 steps" in late
    (destroyed,) = train(lambda step: [9.0, 9.0] if step else [1.0, 0.0])[1].doubts
    assert "that of a guess (0.6931" in destroyed
    assert train(lambda step: [float(step), 0.0])[1].doubts == []


@pytest.mark.parametrize(
    ("steps", "every", "select", "last"),
    [
        (384, 5, Select.dev_metric, 380),  # 76 times, as published for 24 layers
        (12, 4, Select.dev_metric, 12),
        (3, 5, Select.dev_metric, 3),  # otherwise never
        (12, 5, Select.last, 12),  # otherwise another step would be tested
    ],
)
def test_a_method_can_do_without_the_dev_evaluation_after_the_last_step(
    monkeypatch, steps, every, select, last
):
    monkeypatch.setattr(Counter, "needs", Needs(dev_after_last_step=False))
    scores = lambda step: [0.0, 1.0 / (step + 1)]  # noqa: E731
    _, notes, _, _ = train(scores, steps=steps, eval_every=every, select=select)
    dev = [step for step, name, _ in notes.evaluations if name == "dev"]
    assert dev == [*range(every, last, every), last]


def test_evaluations_are_made_when_due_and_after_the_last_step():
    _, notes, _, _ = train(confident, steps=5)
    assert [(step, name) for step, name, _ in notes.evaluations] == [
        (0, "zero_shot"),
        (2, "dev"),
        (4, "dev"),
        (5, "dev"),
        (4, "test"),
    ]


@pytest.mark.parametrize(
    ("select", "step"), [(Select.dev_metric, 4), (Select.dev_loss, 4), (Select.last, 6)]
)
def test_the_chosen_step_is_the_one_tested(select, step):
    outcome, _, _, X = train(confident, select=select)
    assert outcome.best_step == step
    assert float(X.X["w"]) == step
    assert outcome.dev.main == (1.0 if step == 4 else 0.0)


def test_dev_loss_and_dev_accuracy_may_choose_differently():
    def scores(step):
        return {2: [0.1, 0.0], 4: [9.0, 0.0], 6: [0.2, 0.0]}.get(step, [-1.0, 0.0])

    assert train(scores, select=Select.dev_metric)[0].best_step == 2
    assert train(scores, select=Select.dev_loss)[0].best_step == 4


def test_the_schedule_sets_the_optimizers_learning_rate():
    _, _, optimizer, _ = train(confident, steps=4, schedule=Schedule.linear)
    assert optimizer.lrs == [1.0, 0.75, 0.5, 0.25]


def train_where_losses_fail_at(bad, max_bad_steps, steps=6):
    """Train with a weight that counts the steps; the losses of some steps are NaN."""
    X = InPlace({"w": torch.zeros(1, dtype=torch.float64)})
    P = Subspace({}, {}, {"w": torch.ones(1, 1, dtype=torch.float64)})
    calls = []

    class Walker(Counter):
        def step(self, score):
            calls.append(score)
            score(P, (0.5,))
            X.X["w"].add_(1)
            return Report(0.0, forwards=1)

    def scorer(batch):
        training = X.X["w"] % 1 != 0 or X.X["w"] == len(calls) + 0.5
        nan = training and len(calls) in bad
        return torch.full((len(batch.labels), 2), math.nan if nan else 0.0)

    settings = Settings(steps, 2, 100, 1, Schedule.constant, Select.last, max_bad_steps)
    data = Data(EXAMPLES, EXAMPLES, EXAMPLES, LAYOUT)
    notes = Notes()
    notes.evaluated = lambda *told: None
    rows = TrainingRows(len(EXAMPLES), 2, 0, Needs())
    parts = Components(X, Walker(X), *aims(scorer), data, rows, settings, CPU)
    trainer = Trainer(parts, history=History(Log(), None, 0), observer=notes)
    return trainer, notes, X


def test_a_step_whose_loss_is_not_finite_is_skipped_counted_and_reported():
    trainer, notes, _ = train_where_losses_fail_at({2, 3, 5}, max_bad_steps=2)
    outcome = trainer.run()
    assert outcome.spent.bad_steps == 3
    assert outcome.spent.forwards == 3
    assert [step for step, _ in notes.skips] == [2, 3, 5]
    assert "nan" in notes.skips[0][1]
    assert notes.steps == [1, 4, 6]


@pytest.mark.parametrize(("limit", "step"), [(0, 2), (1, 3), (2, 4)])
def test_too_many_skipped_steps_in_a_row_end_the_run_with_advice(limit, step):
    trainer, _, X = train_where_losses_fail_at({2, 3, 4}, max_bad_steps=limit)
    with pytest.raises(UserError, match=rf"^step {step}: the losses .* are nan.*optimizer\.lr"):
        trainer.run()
    assert float(X.X["w"]) == 1.0


def test_an_evaluation_that_is_not_finite_stops_the_run():
    with pytest.raises(UserError, match=r"^step 0: the zero_shot loss is nan; .*optimizer\.lr"):
        train(lambda step: [math.nan, 0.0])
