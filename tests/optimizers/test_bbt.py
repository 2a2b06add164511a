"""BBT and BBTv2: prompts as projections, their accounting, and their steps on a toy."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from toys import module_and_engine, run

from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import combination
from lozo_bench.errors import UserError
from lozo_bench.optimizers.bbt import Bbt
from lozo_bench.optimizers.bbt_v2 import BbtV2
from lozo_bench.optimizers.prompt_modules import prompt_modules
from lozo_bench.randomness.draws import Draws

NAME = "encoder.layer.{}.deep_prompt.values"


def prompts(layers, size, dtype=torch.float64):
    return {NAME.format(i): torch.zeros(1, size, dtype=dtype) for i in range(layers)}


def points(count, d, sigma=1.0):
    return sigma * Draws(1).normal("z", 0, {"z": (count, d)}, dtype=torch.float64)["z"]


@pytest.mark.parametrize(("sigma", "alpha"), [(1.0, 1.0), (0.2, 0.5)])
def test_realised_standard_deviations_of_prompts(sigma, alpha):
    """Of 16 points at 10 tokens of width 1024, d = 500: 160,000 entries."""
    X, std = prompts(2, 10 * 1024, torch.float32), 0.3
    for projection, expected in (("normal", alpha * std), ("uniform", sigma / sqrt(3))):
        _, layer = prompt_modules(X, Draws(0), 500, alpha, sigma, projection)
        spreads = [layer.spread(z, std)["std_prompt"] for z in points(16, 500, sigma)]
        assert sqrt(sum(x * x for x in spreads) / 16) == pytest.approx(expected, rel=0.02)


def test_a_population_has_a_prompt_in_each_column_with_the_bits_that_it_has_alone():
    X = prompts(2, 12)
    first, second = prompt_modules(X, Draws(0), 5, 1.0, 1.0, "normal")
    assert (first.name, first.d) == ("encoder.layer.0", 5)
    Z = points(3, 5)
    P = first.at(Z, std=0.3)
    chosen = combination(P, torch.eye(3)).C
    for i, z in enumerate(Z):
        added = P.U[NAME.format(0)] @ chosen[i] @ P.V[NAME.format(0)].T
        assert torch.equal(added[0], first.at(z[None], std=0.3).V[NAME.format(0)][:, 0])
        assert not torch.equal(added, second.at(z[None], std=0.3).V[NAME.format(1)].T)
    torch.testing.assert_close(first.at(Z[:1] + Z[1:2], 0.6).V, {  # linear in z and in std
        NAME.format(0): 2 * P.V[NAME.format(0)][:, :2].sum(1, keepdim=True)
    })  # fmt: skip


@pytest.mark.parametrize(
    ("method", "layers", "options", "steps"),
    [
        (Bbt, 1, {}, 400),
        (Bbt, 1, {"budget": 20_000}, 1000),
        (Bbt, 1, {"popsize": 22, "sigma": 0.5, "bounds": 5.0, "projection": "uniform"}, 363),
        (BbtV2, 24, {}, 384),
        (BbtV2, 36, {"faithful": True}, 396),
    ],
)
def test_a_budget_pays_for_whole_rounds(method, layers, options, steps):
    made = method(InPlace(prompts(layers, 4)), Draws(0), **options)
    assert made.needs.steps == steps
    assert made.needs.dev_after_last_step == (not options.get("faithful"))
    assert method(InPlace({}), Draws(0), **options).needs.steps is None
    assert method.needs.directions == "low_rank"


def test_options_as_released():
    X = InPlace(prompts(2, 4))
    ours, released = BbtV2(X, Draws(0)).turns, BbtV2(X, Draws(0), faithful=True).turns
    assert (ours.incumbent, ours.statistics, ours.look) == (
        "generation_best",
        "model",
        "incumbent",
    )
    assert (released.incumbent, released.statistics, released.look) == (
        "best_ever",
        "first_candidate",
        "candidate",
    )
    uniform = BbtV2(X, Draws(0), faithful=True, projection="uniform", incumbent="mean").turns
    assert (uniform.incumbent, uniform.statistics) == ("mean", "none")


class Toy:
    """The loss of two prompts: their squared distances from targets, and a product of both."""

    def __init__(self, method, layers, monkeypatch, **options):
        self.module, self.engine = module_and_engine(
            {name.replace(".", "_"): x for name, x in prompts(layers, 6).items()}
        )
        self.engine = InPlace(dict(zip(prompts(layers, 6), self.module.parameters(), strict=True)))
        self.targets = points(layers, 6)
        monkeypatch.setattr(
            Score, "hidden_spread", lambda *_, padding: [0.5 + i for i in range(layers)]
        )
        self.method = method(self.engine, Draws(0), intrinsic_dim=3, **options)

    def loss(self):
        p = torch.cat(list(self.module.parameters()))
        return ((p - self.targets) ** 2).sum() + 0.1 * p.prod(0).sum()


@pytest.mark.parametrize(("method", "layers", "turns"), [(Bbt, 1, 30), (BbtV2, 2, 60)])
def test_the_loss_goes_down_and_a_turn_costs_one_population(method, layers, turns, monkeypatch):
    toy = Toy(method, layers, monkeypatch, popsize=6)
    start = float(toy.loss())
    reports = run(toy.method, toy.engine, toy.loss, turns)
    assert {report.forwards for report in reports} == {6}
    assert reports[0].events[0].values["loss"] == pytest.approx(start)
    # A prompt of 6 numbers, of which 3 are searched, cannot reach its target.
    assert reports[-1].loss < 0.9 * start
    assert [report.scalars["layer"] for report in reports[:4]] == [t % layers for t in range(4)]
    assert all(report.scalars["std_prompt"] > 0 for report in reports)


def test_a_turn_scores_the_prompts_of_its_layer_beside_the_incumbent_of_the_other(monkeypatch):
    toy = Toy(BbtV2, 2, monkeypatch, popsize=4)
    seen = []

    def loss():
        seen.append(torch.cat(list(toy.module.parameters())).clone())
        return toy.loss()

    run(toy.method, toy.engine, loss, 1)
    P, zero = toy.method.turns.modules[0].P, torch.zeros(6, dtype=torch.float64)
    s = 0.5 / sqrt(3)  # alpha std / (sqrt(d) sigma)
    torch.testing.assert_close(seen[0], torch.stack([zero, zero]))
    assert len(seen) == 1 + 4
    best = min(seen[1:], key=lambda p: float(((p - toy.targets) ** 2).sum()))[0]
    torch.testing.assert_close(best, s * P(toy.method.turns.z[0][None])[0])
    seen.clear()
    run(toy.method, toy.engine, loss, 1)
    assert len(seen) == 4
    for p in seen:
        torch.testing.assert_close(p[0], best)
        assert p[1].any()


def test_prompts_must_be_there_and_alone_and_bbt_searches_one():
    with pytest.raises(UserError, match=r"^optimizer: .* alone, and classifier\.weight is to be"):
        Bbt(InPlace(prompts(1, 4) | {"classifier.weight": torch.zeros(2, 2)}), Draws(0))
    with pytest.raises(UserError, match=r"^optimizer: it searches for prompts, .*tuning=deep_p"):
        BbtV2(InPlace({"w": torch.zeros(2, 2)}), Draws(0))
    with pytest.raises(
        UserError, match=r"^optimizer=bbt: .*there are 2; what to do: tuning\.layers"
    ):
        Bbt(InPlace(prompts(2, 4)), Draws(0))


@pytest.mark.parametrize("method", [Bbt, BbtV2])
@pytest.mark.parametrize(
    ("option", "value"),
    [("intrinsic_dim", 0), ("popsize", 1), ("budget", 0), ("sigma", 0.0), ("alpha", -1.0)],
)
def test_options_are_checked_without_any_weights(method, option, value):
    with pytest.raises(UserError, match=rf"^{option}: given {value}; allowed: "):
        method(InPlace({}), Draws(0), **{option: value})
