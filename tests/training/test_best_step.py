"""What keeping the best step of a run copies, and that exactly its weights are tested."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.config.schema import Schedule, Select
from lozo_bench.data.batch import BatchLayout
from lozo_bench.data.sets import Data
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.host_memory import HostCopies
from lozo_bench.engine.subspace import Subspace, along
from lozo_bench.engine.tensors import fingerprint
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

LAYOUT, CPU = BatchLayout(pad_id=0, label_ids=(0, 1)), torch.device("cpu")
EXAMPLES = [Encoded(rows=((1,),), answer=((0,),), label=0)] * 2


class Walker:
    """An optimizer whose every period has two steps; it notes the weights after each step."""

    needs = Needs()

    def __init__(self, engine):
        self.engine, self.lr, self.t, self.after = engine, 1.0, 0, [fingerprint(engine.tensors())]

    def step(self, score):
        names = {"U": (300, 2), "V": (400, 2)}
        V = Draws(0).normal("V", self.t // 2, {"V": names["V"]})
        if self.t % 2 == 0:
            self.V = {"weight": V["V"]}
        U = Draws(0).normal("U", self.t, {"U": names["U"]})
        P = Subspace({"weight": U["U"]}, self.V, {})
        self.engine.move(P, along(P, 1e-3))
        self.t += 1
        self.after.append(fingerprint(self.engine.tensors()))
        return Report(0.0, forwards=1)


@pytest.mark.parametrize(
    ("max_rank", "best", "copies"),
    [(32, 4, 0), (4, 10, 1), (4, 4, 1), (0, 2, 1), (0, 1, 1)],
    ids=["no fold", "a fold after an earlier best", "a fold after it", "many folds", "many after"],
)
def test_the_weights_are_copied_only_when_a_fold_follows_the_best_step_so_far(
    monkeypatch, max_rank, best, copies
):
    copied, copy = [], HostCopies.copy

    def counted(self, x):
        copied.append(x.numel())
        return copy(self, x)

    monkeypatch.setattr(HostCopies, "copy", counted)
    net = torch.nn.Linear(400, 300, bias=False).bfloat16().eval()
    engine = Fused(net, dict(net.named_parameters()), Folder("stochastic", Draws(0)), max_rank)
    optimizer = Walker(engine)
    optimizer.V = None

    def scorer(batch):
        right = 1.0 if optimizer.t == best else -1.0
        return torch.tensor([[right, 0.0]] * len(batch.labels))

    evaluator = OptionEvaluator(scorer, LAYOUT, CPU, classification)
    parts = Components(
        engine,
        optimizer,
        OptionObjective(scorer, LAYOUT, CPU),
        dict.fromkeys(("zero_shot", "dev", "test"), evaluator),
        Data(EXAMPLES, EXAMPLES, EXAMPLES, LAYOUT),
        TrainingRows(2, 2, 0, Needs()),
        Settings(10, 2, 1, 10, Schedule.constant, Select.dev_metric, 3),
        CPU,
    )
    outcome = Trainer(parts, history=History(Log(), None, 0), observer=SilentObserver()).run()
    assert outcome.best_step == best
    assert outcome.weights == {"last": optimizer.after[10], "tested": optimizer.after[best]}
    assert fingerprint(engine.tensors()) == optimizer.after[best]
    assert copied.count(300 * 400) == copies
    engine.flush()  # as when the model is saved: the best step's weights are not needed twice
    assert copied.count(300 * 400) == copies
