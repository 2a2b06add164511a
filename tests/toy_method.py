"""A method that uses everything a method may use, on a model of four weights; run in a process."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from itertools import count
from types import SimpleNamespace

import torch
from cells import context, place
from torch import nn

from lozo_bench.config.schema import Schedule, Select
from lozo_bench.data.batch import BatchLayout
from lozo_bench.data.sets import Data
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.subspace import Subspace
from lozo_bench.engine.terms import Extras
from lozo_bench.errors import Stopped
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.optimizers.base import Event, Needs, Report, Stream
from lozo_bench.parallel.team import join
from lozo_bench.runs.checkpoints import Checkpoints
from lozo_bench.runs.history import HistoryWriter
from lozo_bench.runs.recall import recall
from lozo_bench.tasks.base import Encoded
from lozo_bench.training.interfaces import Components, Settings
from lozo_bench.training.rows import TrainingRows
from lozo_bench.training.trainer import Trainer

STEPS, ROWS = 6, 12
STOPPED = 3
EXAMPLES = [Encoded(rows=((i,),), answer=((0,),), label=0) for i in range(ROWS)]
X_OF_ROWS = torch.linspace(-1, 1, ROWS * 4, dtype=torch.float64).view(ROWS, 4).sin()


class Model(nn.Module):
    """Half the squared error of gate * (x . w); NaN where w is far from 0."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.full((4,), 0.5, dtype=torch.float64), requires_grad=False)
        self.register_buffer("gate", torch.ones(1, dtype=torch.float64))

    def losses(self, rows):
        far = torch.where(self.w.abs().max() > 100, math.nan, 0.0)
        return ((self.gate * (X_OF_ROWS[rows] @ self.w) - 1) ** 2) / 2 + far


class Objective:
    def __init__(self, model):
        self.model = model

    def prepare(self, examples, shares):
        rows = [example.rows[0][0] for example in examples]
        losses = lambda copies: self.model.losses(rows).repeat(copies, 1)  # noqa: E731
        return SimpleNamespace(
            micro_batch=MicroBatch(len(rows), len(rows), losses), tokens=len(rows)
        )

    def tokens(self, examples):
        return len(examples)


class Evaluator:
    columns = 1

    def __init__(self, model):
        self.model = model

    def results(self, examples):
        return self.model.losses([example.rows[0][0] for example in examples]).view(-1, 1)

    def metrics(self, found, examples):
        # The best step is the one whose loss is closest to a level that is passed on the way.
        loss = float(found.mean())
        return Metrics({"fit": 1 - abs(loss - 0.54), "loss": loss})


class Search:
    """An attribute with a state of its own."""

    def __init__(self):
        self.told = []

    def state(self):
        return {"told": torch.tensor(self.told, dtype=torch.float64)}

    def load_state(self, state):
        self.told = state["told"].tolist()


class Toy:
    """A step asks about the whole set, one batch of 'upper', one or two of 'lower', and 'probe'.

    One candidate of 'probe' always has a NaN loss.
    """

    needs = Needs(
        directions="low_rank",
        batch=Stream(batch_size="all"),
        streams={
            "upper": Stream(rows=(0.0, 0.5), batch_size=4),
            "lower": Stream(rows=(0.5, 1.0)),
            "probe": Stream(batch_size=5, order="fixed"),
        },
    )

    def __init__(self, engine, replayable, kill_at):
        self.engine, self.lr, self.t = engine, 0.4, 0
        self.needs = replace(Toy.needs, replayable=replayable)
        self.search = Search()
        self.nested = {"means": {"upper": 0.0, "lower": []}, "pair": (torch.zeros(2), 1)}
        self.first_loss = None
        self.may_be_killed = partial(_kill_at, kill_at)  # an option, which is no state

    def step(self, score):
        t, self.t = self.t, self.t + 1
        z = torch.tensor([[math.sin(t + i)] for i in range(4)], dtype=torch.float64)
        P, eps = Subspace({}, {}, {"w": z}), 1e-2
        plus, minus = score(P, (eps, -eps))
        upper = score.on("upper")(P, (eps, -eps))
        self.may_be_killed(t + 1)
        # What changes between two questions must not be in the state of a run that stops there.
        self.nested["means"]["upper"] += sum(upper)
        self.engine.extras.tensors["gate"].mul_(1.001)
        lower = [score.on("lower")(P, (0.0,))[0] for _ in range(1 + t % 2)]
        far, near, other = score.on("probe")(P, (1e6, 0.1, -0.1), finite=False)
        assert far == math.inf
        assert math.isfinite(near + other)
        c = (plus - minus + upper[0] - upper[1]) / (2 * eps)
        self.engine.move(P, _point(P, -self.lr * c))
        gate = self.engine.extras.tensors["gate"]
        gate.mul_(1.01 if near < other else 0.99)
        self.search.told.append(near - other)
        self.nested["means"]["lower"].append(torch.tensor(lower))
        if self.first_loss is None:
            self.first_loss = torch.tensor(plus)
        # The state is part of the trajectory: a wrong one shows in the weights.
        memory = sum(self.search.told) + self.nested["means"]["upper"] + float(self.first_loss)
        memory += sum(float(x.sum()) for x in self.nested["means"]["lower"])
        self.engine.move(P, _point(P, -1e-3 * memory))
        return Report(plus, forwards=2, events=[Event("gate", {"value": float(gate)})])


def _kill_at(wanted, step):
    if step == wanted:
        os.kill(os.getpid(), signal.SIGKILL)


def _point(P, c):
    from lozo_bench.engine.subspace import along

    return along(P, c)


def start(folder, *, replayable, kill_at=None, stop_after=None, rank=0, processes=1, port=0):
    folder.mkdir(parents=True, exist_ok=True)
    environment = place(rank, processes, port)
    process = context.Process(
        target=_run, args=(folder, replayable, kill_at, stop_after, environment)
    )
    process.start()
    return process


class Events:
    """An observer that keeps the events."""

    def __init__(self):
        self.events = []

    def happened(self, step, event):
        self.events.append([step, event.name, dict(event.values)])

    def __getattr__(self, name):
        return lambda *_: None


def _run(folder, replayable, kill_at, stop_after, environment):
    os.environ.update(environment)
    torch.set_num_threads(1)
    team, events = join("batch", 60), Events()
    past, _ = recall(folder, "toy", replayable)
    model = Model()
    engine = InPlace({"w": model.w}, model, Extras({"gate": model.gate}))
    optimizer = Toy(engine, replayable, kill_at)
    parts = Components(
        engine=engine,
        optimizer=optimizer,
        objective=Objective(model),
        evaluators=dict.fromkeys(("zero_shot", "dev", "test"), Evaluator(model)),
        data=Data(EXAMPLES, EXAMPLES, EXAMPLES, BatchLayout(pad_id=0)),
        rows=TrainingRows(ROWS, 5, 0, optimizer.needs),
        settings=Settings(STEPS, 4, 2, 1, Schedule.constant, Select.dev_metric, 0),
        device=torch.device("cpu"),
    )
    history = past
    if team.rank == 0:
        states = None if replayable else Checkpoints(folder / "checkpoints", keep=2)
        header = {"digest": "toy"}
        history = HistoryWriter(folder, past, header, 2, states, replayable, lambda: None)
    checks = count(1)

    def check():
        if stop_after is not None and next(checks) > stop_after:
            raise Stopped

    trainer = Trainer(parts, history=history, observer=events, sharing=team.sharing, check=check)
    try:
        outcome = trainer.run()
    except Stopped:
        sys.exit(STOPPED)
    if team.rank == 0:
        found = {
            "weights": outcome.weights,
            "w": model.w.tolist(),
            "gate": model.gate.tolist(),
            "best_step": outcome.best_step,
            "test": dict(outcome.test.values),
            "events": events.events,
            "forwards": outcome.spent.forwards,
            "queries": outcome.spent.queries,
            "tokens": outcome.spent.tokens,
            "bad_candidates": outcome.spent.bad_candidates,
        }
        (folder / "outcome.json").write_text(json.dumps(found))
