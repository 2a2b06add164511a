"""The loop over layers, with a toy model of three matrices and a search that draws at random."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch
from toys import module_and_engine

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import Subspace
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.errors import Stopped, UserError
from lozo_bench.optimizers.base import Needs
from lozo_bench.optimizers.layer_turns import LayerTurns, needs_of_turns
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.randomness.draws import Draws

pytestmark = pytest.mark.timeout(60)

L, POPSIZE = 3, 4


class RandomSearch:
    """Draws a population around 0; ``asks`` = 2 draws the last point of a turn by itself."""

    points = ("best_ever", "generation_best")
    asks = 1

    def __init__(self, name, asks=1):
        self.name, self.asks = name, asks
        self.best_loss, self.best, self.last = inf, torch.zeros(2), torch.zeros(2)
        self.told, self.asked = [], []

    def ask(self, turn):
        count = POPSIZE if self.asks == 1 else (POPSIZE - 1, 1)[len(self.told) % 2]
        key = {f"{self.name}/{len(self.told)}": (count, 2)}
        (self.Z,) = Draws(3).normal("Z", turn, key, dtype=torch.float64).values()
        return self.Z

    def tell(self, losses):
        self.told.append(list(losses))
        k = min(range(len(losses)), key=losses.__getitem__)
        self.last = self.Z[k]
        if losses[k] < self.best_loss:
            self.best_loss, self.best = losses[k], self.Z[k]

    def point(self, which):
        return self.best if which == "best_ever" else self.last

    def numbers(self):
        return {}

    def state(self):
        told = torch.tensor(len(self.told)), torch.tensor(self.best_loss, dtype=torch.float64)
        return {"told": told[0], "loss": told[1], "best": self.best, "last": self.last}

    def load_state(self, state):
        self.told = [[]] * int(state["told"])
        self.best_loss, self.best, self.last = float(state["loss"]), state["best"], state["last"]


class Outer:
    """A module of rank 1 beside a matrix [2, 2]: z e^T with e = (1, 1)."""

    d = 2

    def __init__(self, name):
        self.name = name

    def at(self, Z, std):
        return Subspace({self.name: Z.T.contiguous()}, {self.name: torch.ones(2, len(Z)).to(Z)}, {})

    def spread(self, z, std):
        return {"std_z": float(z.std())}


class Setup:
    """A model whose loss depends on every matrix, and the losses that it was asked for."""

    def __init__(self, asks=1, **options):
        X = {f"w{i}": torch.zeros(2, 2, dtype=torch.float64) for i in range(L)}
        self.module, self.engine = module_and_engine(X)
        modules = [Outer(name) for name in X]
        self.turns = LayerTurns(
            self.engine,
            modules,
            lambda name: RandomSearch(name, asks),
            **{"incumbent": "generation_best", "statistics": "none"} | options,
        )
        self.searches = self.turns.searches
        self.seen = []
        self.returns = None
        self.t = 0

    def loss(self):
        W = [x.detach().clone() for x in self.module.parameters()]
        self.seen.append(W)
        value = sum(((w - i - 1) ** 2).sum() for i, w in enumerate(W)) + (W[0] @ W[1] @ W[2]).sum()
        if self.returns is not None:
            value = value * self.returns(len(self.seen))
        return value

    def score(self, check=lambda: None):
        part = MicroBatch(size=1, tokens=1, losses=lambda copies: self.loss().view(1, 1))
        return Score(self.engine, [part], check=check)

    def step(self, **options):
        t, self.t = self.t, self.t + 1
        return self.turns.make(t, self.score(**options))

    def weights(self):
        with self.engine.applied():
            return [x.detach().clone() for x in self.module.parameters()]


def outer(z):
    return z[:, None] @ torch.ones(1, 2, dtype=torch.float64)


def test_a_turn_scores_candidates_of_one_layer_beside_the_incumbents_of_the_others():
    setup = Setup()
    zero = torch.zeros(2, 2, dtype=torch.float64)
    incumbents = [zero] * L
    for t in range(2 * L):
        i = t % L
        setup.seen.clear()
        report = setup.step()
        Z = setup.searches[i].Z
        seen = setup.seen[1:] if t == 0 else setup.seen  # the first one is the untouched model
        if t == 0:
            torch.testing.assert_close(setup.seen[0], [zero] * L)
        assert len(seen) == report.forwards == POPSIZE
        for z, W in zip(Z, seen, strict=True):
            torch.testing.assert_close(W, [*incumbents[:i], outer(z), *incumbents[i + 1 :]])
        losses = setup.searches[i].told[-1]
        best = min(range(POPSIZE), key=losses.__getitem__)
        assert report.loss == losses[best]
        incumbents[i] = outer(Z[best])
        torch.testing.assert_close(setup.weights(), incumbents)


def test_the_untouched_model_is_reported_once_and_is_no_call():
    setup = Setup()
    first, second = setup.step(), setup.step()
    (event,) = first.events
    assert event.name == "untouched_model"
    assert event.values == {"loss": float(sum(4 * (i + 1) ** 2 for i in range(L)))}
    assert not second.events
    assert first.forwards == second.forwards == POPSIZE


def test_the_report_of_a_turn_names_layer_and_round():
    setup = Setup()
    for _ in range(L + 1):
        values = setup.step().scalars
    told = setup.searches[0].told[-1]
    assert (values["layer"], values["round"]) == (0, 1)
    assert values["best"] == min(told)
    assert values["mean"] == pytest.approx(sum(told) / POPSIZE)
    assert values["best_ever"] == setup.searches[0].best_loss
    assert values["std_z"] == float(setup.turns.z[0].std())


def test_best_ever_keeps_a_point_of_an_earlier_round():
    setup = Setup(incumbent="best_ever")
    for _ in range(4 * L):
        setup.step()
    for i, search in enumerate(setup.searches):
        torch.testing.assert_close(setup.weights()[i], outer(search.best))


def test_a_look_as_published_sees_the_last_candidate_and_the_next_turn_does_not():
    setup = Setup(look="candidate")
    setup.step()
    torch.testing.assert_close(setup.weights()[0], outer(setup.searches[0].Z[-1]))
    chosen = setup.searches[0].last
    setup.seen.clear()
    setup.step()
    torch.testing.assert_close([W[0] for W in setup.seen], [outer(chosen)] * POPSIZE)
    torch.testing.assert_close(setup.weights()[1], outer(setup.searches[1].Z[-1]))


def test_a_turn_that_asks_twice_counts_all_its_calls():
    setup = Setup(asks=2)
    assert setup.step().forwards == POPSIZE
    assert [len(losses) for losses in setup.searches[0].told] == [POPSIZE - 1, 1]


def test_a_turn_whose_losses_all_fail_leaves_everything_as_it_was():
    setup = Setup()
    for _ in range(L + 1):
        setup.step()
    before, told = setup.weights(), len(setup.searches[1].told)
    setup.returns = lambda call: nan
    with pytest.raises(NonFiniteLossError):
        setup.step()
    torch.testing.assert_close(setup.weights(), before)
    assert len(setup.searches[1].told) == told
    setup.returns = None
    report = setup.step()  # the next layer's turn
    assert report.scalars["layer"] == 2


def test_a_candidate_that_fails_is_told_as_infinite():
    setup = Setup()
    setup.step()
    setup.returns = lambda call: inf if call == 2 + POPSIZE else 1.0
    report = setup.step()
    told = setup.searches[1].told[-1]
    assert told.count(inf) == 1
    assert told[0] == inf
    assert report.scalars["mean"] == pytest.approx(sum(told[1:]) / (POPSIZE - 1))


def test_a_turns_first_points_count_although_all_its_last_points_fail():
    setup = Setup(asks=2)
    setup.step()
    setup.returns = lambda call: nan if call == 1 + 2 * POPSIZE else 1.0
    report = setup.step()
    first, last = setup.searches[1].told
    assert (len(first), last) == (POPSIZE - 1, [inf])
    assert report.loss == min(first)


@pytest.mark.parametrize("stop_at", [0, 3])
def test_a_turn_that_is_stopped_can_be_made_again(stop_at):
    straight, stopped = Setup(asks=2), Setup(asks=2)
    for _ in range(L + 1):
        straight.step()
        stopped.step()
    calls = iter(range(100))

    def check():
        if next(calls) == stop_at:
            raise Stopped("a signal")

    with pytest.raises(Stopped):
        stopped.step(check=check)
    stopped.t -= 1
    torch.testing.assert_close(stopped.weights(), straight.weights())
    for _ in range(3):
        straight.step()
        stopped.step()
    torch.testing.assert_close(stopped.weights(), straight.weights())


@pytest.mark.parametrize("look", ["incumbent", "candidate"])
@pytest.mark.parametrize("made", [0, 1, 4])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(look, made):
    class Method:
        def __init__(self):
            self.setup = None

    straight, again = Setup(look=look), Setup(look=look)
    for _ in range(made):
        straight.step()
    holder, resumed = Method(), Method()
    holder.turns, resumed.turns = straight.turns, again.turns
    engine, state = straight.engine.state(), optimizer_state(holder)
    again.engine.load_state(engine)
    load_optimizer_state(resumed, state)
    again.t = straight.t
    for _ in range(L + 1):
        straight.step()
        again.step()
    assert fingerprint(again.engine.state()) == fingerprint(straight.engine.state())


def test_the_fused_engine_gives_the_same_trajectory():
    ends = []
    for fused in (False, True):
        setup = Setup()
        if fused:
            setup.module.eval()
            X = dict(setup.module.named_parameters())
            setup.engine = Fused(Model(setup), X, Folder("nearest", Draws(0)), per_forward=1)
            setup.turns.engine = setup.engine
            setup.loss = Model.value.__get__(setup.engine.model)
        for _ in range(2 * L):
            setup.step()
        ends.append(torch.stack([setup.turns.z[i] for i in range(L)]))
    torch.testing.assert_close(*ends)


class Model(torch.nn.Module):
    """The toy's loss as a model, whose matrices are multiplied as linear layers are."""

    def __init__(self, setup):
        super().__init__()
        for name, x in setup.module.named_parameters():
            self.register_parameter(name, x)
        self.eval()

    def forward(self, x):
        W = [torch.nn.functional.linear(x, getattr(self, f"w{i}")) for i in range(L)]
        chain = x
        for i in (2, 1, 0):
            chain = torch.nn.functional.linear(chain, getattr(self, f"w{i}"))
        squares = sum(((w - i - 1) ** 2).sum() for i, w in enumerate(W))
        return squares + chain.sum()

    def value(self):
        return self(torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("layers", "steps", "calls", "looks"),
    [(24, 384, 7680, 76), (36, 396, 7920, 79), (48, 384, 7680, 76), (32, 384, 7680, 76)],
)
def test_a_budget_pays_for_whole_rounds(layers, steps, calls, looks):
    needs = needs_of_turns(8000, 20, layers, "candidate")
    assert needs.steps == steps
    assert 20 * needs.steps == calls
    assert needs.steps // 5 == looks
    assert not needs.dev_after_last_step


def test_without_a_model_the_number_of_steps_is_not_known():
    assert needs_of_turns(8000, 20, 0) == Needs(
        "low_rank", steps=None, any_length=True, batch=needs_of_turns().batch
    )
    with pytest.raises(UserError, match="budget: given 59; allowed: at least 60: 20 calls"):
        needs_of_turns(59, 20, 3)
