"""An optimizer with an allocation: what it needs, counts and keeps, and how it goes on."""

from __future__ import annotations

import math

import pytest
import torch
from gated_models import OPTIONS, Run, with_proxy

from lozo_bench.allocation.allocate import ByScore
from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.errors import Stopped, UserError
from lozo_bench.optimizers.base import Needs, Report
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.tuning.gated_lora import GatedLora
from lozo_bench.tuning.lora import Lora

KINDS = {
    "separate": {},
    "online": {"score": "online"},
    "dense": {"proxy": "dense_gradient", "score": "online"},
    "rank": {"allocate": "rank", "budget": 0.5},
    "constant": {"proxy": "constant"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_continued_from_its_state_is_the_same_to_the_bit(kind):
    whole = Run(epoch=2, **KINDS[kind])
    whole.steps(3)
    state, weights = optimizer_state(whole.optimizer), whole.engine.state()
    later = whole.steps(4)
    again = Run(epoch=2, **KINDS[kind])
    again.engine.load_state(weights)
    load_optimizer_state(again.optimizer, state)
    again.made = 3
    assert again.steps(4) == later
    assert len(later) == 2
    assert fingerprint(again.engine.tensors()) == fingerprint(whole.engine.tensors())


def test_online_scores_need_no_pass_of_their_own_and_change_no_step():
    run, plain = Run(epoch=3, score="online"), Run(epoch=99, proxy="constant")
    run.steps(3)
    assert run.scored == []
    plain.steps(1)
    plain.gates.set(torch.tensor([int(e) for e in run.events[0]["enabled"]]) * 2)
    fresh, other = Run(), Run()
    for each in (fresh, other):
        each.gates.set(plain.gates.ranks)
    for number in range(1, 4):
        for each in (fresh, other):
            each.made = number - 1
            if each is fresh:
                with run.optimizer.online.watching(restart=False):
                    each.inner.step(each.score())
            else:
                each.inner.step(each.score())
    assert fingerprint(fresh.engine.tensors()) == fingerprint(other.engine.tensors())


def test_online_scores_are_the_norms_of_the_gradients_summed_over_the_steps():
    run = Run(epoch=2, score="online", budget=1.0)
    sums = {}

    def keep(score):
        report = step(score)
        for module in run.gates.modules:
            for name, x in zip(module.names, (module.A, module.B), strict=True):
                sums[name] = sums.get(name, 0) + x.grad
        return report

    step, run.inner.step, run.inner.max_grad_norm = run.inner.step, keep, math.inf
    run.steps(2)
    expected = [sum(sums[name].norm() for name in m.names) for m in run.gates.modules]
    (event,) = run.steps(1)
    assert event["scores"].split() == [f"{x:.4g}" for x in expected]


def test_the_first_event_names_the_modules_and_every_event_has_the_set():
    run = Run(budget=0.5)
    first, second = run.steps(2)
    modules = run.gates.modules
    assert first["modules"].split() == [m.name for m in modules]
    assert first["groups"].split() == ["q_proj", "v_proj"] * 3
    assert first["layers"].split() == ["0", "0", "1", "1", "2", "2"]
    assert "modules" not in second
    best = sorted(range(6), key=lambda i: -float(second["scores"].split()[i]))[:3]
    assert second["enabled"] == "".join(str(int(i in best)) for i in range(6))
    assert second["active_parameters"] == 3 * modules[0].size


class Fails:
    """An optimizer whose steps fail as they are told to."""

    needs = Needs(gradient=True, replayable=False)

    def __init__(self, engine):
        self.lr, self.errors, self.t = 0.1, [], 0

    def step(self, score):
        self.t += 1
        if self.errors:
            raise self.errors.pop(0)
        return Report(1.0, forwards=1)


@pytest.mark.parametrize(("error", "t"), [(Stopped(), 1), (NonFiniteLossError("nan"), 2)])
def test_a_step_that_is_not_made_leaves_the_modules_as_they_were(error, t):
    run = Run(optimizer=Fails, epoch=2)
    run.steps(2)
    before = run.gates.ranks.clone()
    run.gates.modules[0].B.data += 100.0  # another set would be chosen now
    run.inner.errors = [error]
    with pytest.raises(type(error)):
        run.optimizer.step(run.score())
    assert torch.equal(run.gates.ranks, before)
    assert run.inner.t == t + 1
    assert run.optimizer.number == 1
    assert len(run.steps(1)) == 1  # it is made before the next step


def test_the_learning_rate_is_that_of_the_wrapped_optimizer():
    run = Run()
    run.optimizer.lr = 0.25
    assert run.inner.lr == run.optimizer.lr == 0.25


def test_a_score_that_is_no_number_names_its_module():
    run = Run()
    scores = torch.tensor([1.0, 2.0, math.nan, 1.0, 1.0, 1.0])
    run.optimizer.setup.options.proxy.scores = lambda *given: scores
    with pytest.raises(UserError, match=r"the score of layers\.1\.q_proj is nan with GradNorm"):
        run.steps(1)


LORA = {"r": 2, "alpha": 4.0, "targets": "q_proj"}
FIRST_ORDER = Needs(gradient=True, replayable=False)


def needs(inner, tuning=None, **options):
    allocation = ByScore(**OPTIONS | with_proxy(options))
    return allocation.needs(inner, tuning or GatedLora(**LORA))


def test_only_proxies_that_differentiate_take_away_that_a_run_can_be_replayed():
    replayable = Needs(directions="low_rank")
    found = needs(replayable, proxy="alpha_test")
    assert (found.replayable, found.gradient) == (True, False)
    assert found.streams["allocation"].limit == 2
    found = needs(replayable, proxy="grad_norm")
    assert (found.replayable, found.gradient) == (False, True)
    assert needs(FIRST_ORDER, proxy="constant").streams == {}
    assert needs(FIRST_ORDER, score="online").streams == {}


@pytest.mark.parametrize(
    ("inner", "tuning", "options", "said"),
    [
        (FIRST_ORDER, Lora(**LORA), {}, "tuning=Lora has none; allowed: tuning=gated_lora"),
        (Needs(), None, {"score": "online"}, "allocation.score: given 'online'; allowed: separate"),
        (Needs(), None, {"allocate": "rank"}, "allocation.allocate: given 'rank'; allowed: gates"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(
    inner, tuning, options, said
):
    with pytest.raises(UserError) as refused:
        needs(inner, tuning, **options)
    assert said in str(refused.value)
