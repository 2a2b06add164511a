"""IST: which layers move, and how their scores follow from losses."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from gated_models import part, stack

from lozo_bench.allocation.base import Length
from lozo_bench.allocation.ist import Ist, sample
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import ScoredBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.errors import UserError
from lozo_bench.optimizers.adamw import AdamW
from lozo_bench.optimizers.base import Needs
from lozo_bench.optimizers.mezo import Mezo
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.gated_lora import GatedLora
from lozo_bench.tuning.lora import Lora

PUBLISHED = {"train": 0.25, "suppress": 0.5, "beta": 0.25, "every": 10, "sets": 3, "eta": 10.0}
PUBLISHED |= {"rows": 4}


class Run:
    def __init__(self, method="adamw", layers=4, **options):
        self.tuned = stack(layers=layers, B=0.5)
        self.engine = InPlace(self.tuned.X, self.tuned.model, self.tuned.extras)
        if method == "adamw":
            inner = AdamW(self.engine, Draws(0), lr=0.01, autocast=None, weight_decay=0.1)
        else:
            inner = Mezo(self.engine, Draws(0), lr=0.01, eps=1e-3, weight_decay=0.1)
        around = Ist(**PUBLISHED | options).around
        length = Length(30, {"": 5})
        self.inner = inner
        self.optimizer = around(inner, self.engine, self.tuned, Draws(0), length)
        self.answers = []

    def step(self, recorded=None):
        batch = [] if recorded else [part(self.tuned.model, len(self.answers))]
        there = [] if recorded else [part(self.tuned.model, 100)]
        score = Score(
            self.engine, batch, examples=4, recorded=recorded,
            streams=lambda name: ScoredBatch(there, examples=4),
        )  # fmt: skip
        report = self.optimizer.step(score)
        self.engine.flush()
        self.answers.append(score.answers)
        return report


@pytest.mark.parametrize("method", ["adamw", "mezo"])
def test_a_step_moves_a_quarter_of_the_layers_and_leaves_the_others_and_their_moments(method):
    run, chosen = Run(method), set()
    moments = run.inner.moments.state if method == "adamw" else {}
    for _ in range(12):
        before = {n: x.detach().clone() for n, x in run.tuned.X.items()}
        kept = {x: {k: v.clone() for k, v in s.items()} for x, s in moments.items()}
        run.step()
        moved = {n for n, x in run.tuned.X.items() if not torch.equal(x, before[n])}
        layers = {n.split(".")[1] for n in moved}
        assert len(layers) == 1
        assert moved == {n for n in run.tuned.X if n.split(".")[1] in layers}
        for n, x in run.tuned.X.items():
            assert x.requires_grad
            for key, value in kept.get(x, {}).items():
                assert torch.equal(moments[x][key], value) == (n not in moved)
        chosen |= layers
    assert len(chosen) > 1


def test_scores_follow_from_the_losses_with_suppressed_layers():
    run = Run()
    for _ in range(10):
        assert run.step().events == []
    p = torch.full((4,), 0.5, dtype=torch.float64)
    sets = run.optimizer._different_sets(p, 10)
    assert len(sets) == len({tuple(each) for each in sets}) == 3
    assert all(len(each) == 2 for each in sets)
    gains = []
    for each in sets:
        plain = stack(layers=4)
        for name, x in run.tuned.X.items():
            factor = 0.25 if "lora_B" in name and int(name.split(".")[1]) in each else 1.0
            plain.X[name].data = factor * x.detach()
        gains.append(float(torch.exp(-part(plain.model, 100).losses(1).detach().mean())))
    expected = torch.zeros(4, dtype=torch.float64)
    for each, gain in zip(sets, gains, strict=True):
        for i in each:
            expected[i] += 10.0 * (gain - sum(gains) / 3) * 0.25
    (event,) = run.step().events
    torch.testing.assert_close(run.optimizer.importance, expected, rtol=1e-9, atol=1e-12)
    assert event.name == "importance"
    assert len(set(run.optimizer.importance.tolist())) > 1


def test_a_zeroth_order_run_is_replayed_from_its_losses():
    run, again = Run("mezo"), Run("mezo")
    for _ in range(12):
        run.step()
    for answers in run.answers:
        again.step(recorded=answers)
    assert fingerprint(again.engine.tensors()) == fingerprint(run.engine.tensors())
    assert torch.equal(again.optimizer.importance, run.optimizer.importance)


def test_a_sample_is_drawn_one_after_another_in_proportion_to_the_weights():
    w = torch.tensor([1.0, 2.0, 4.0, 1.0], dtype=torch.float64)
    found = [tuple(sample(w, 2, Draws(0), "test", i)) for i in range(4000)]
    for pair in {tuple(sorted(each)) for each in permutations(range(4), 2)}:
        exact = sum(w[i] / 8 * w[j] / (8 - w[i]) for i, j in permutations(pair))
        assert found.count(pair) / 4000 == pytest.approx(float(exact), abs=0.025)


def test_what_cannot_be_is_refused_in_one_line():
    gated = GatedLora(r=1, alpha=1.0, targets="q")
    needs = Ist(**PUBLISHED).needs(Needs(directions="low_rank"), gated)
    assert needs.replayable
    assert needs.streams["importance"].batch_size == 4
    with pytest.raises(UserError, match=r"^allocation: IST .* tuning=Lora has none that can rest"):
        Ist(**PUBLISHED).needs(Needs(), Lora(r=1, alpha=1.0, targets="q"))
    with pytest.raises(UserError, match=r"^allocation\.sets: given 3; allowed: up to 2, as many"):
        Run(layers=2)
    for key, value in {"train": 0.0, "suppress": 1.5, "beta": 1.0, "sets": 1, "eta": 0.0}.items():
        with pytest.raises(UserError, match=rf"^{key}: given {value}; allowed: "):
            Ist(**PUBLISHED | {key: value})
