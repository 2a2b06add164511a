"""CMA-ES: the package's rules, with the run's random numbers and without a trace elsewhere."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lozo_bench.errors import BadValueError
from lozo_bench.optimizers.cma_es import CmaEs
from lozo_bench.randomness.draws import Draws

INF = math.inf


def search(seed=3, name="layer.0", **options):
    options = {"dimension": 6, "sigma": 0.5, "popsize": 8} | options
    return CmaEs(Draws(seed), name, **options)


def shifted_sphere(points):
    return ((points - 1) ** 2).sum(1).tolist()


def random_losses(turn, count):
    drawn = Draws(99).normal("test", turn, {"losses": (count,)}, dtype=torch.float64)
    return drawn["losses"].tolist()


def turns(es, numbers, loss=shifted_sphere):
    for turn in numbers:
        es.tell(loss(es.ask(turn)))
    return es


def plain_csa(d, n, sigma, normals, losses):
    """Return the mean and sigma after turns of equations (1) to (4), with C = I."""
    positive = np.log((n + 1) / 2) - np.log(np.arange(1, n // 2 + 1))
    w = positive / positive.sum()
    mu_eff = 1 / (w**2).sum()
    c = (mu_eff + 2) / (d + mu_eff + 3)
    damping = 1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (d + 1)) - 1) + c
    expected = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))
    m, p = np.zeros(d), np.zeros(d)
    for z, told in zip(normals, losses, strict=True):
        best = z[np.argsort(told, kind="stable")[: n // 2]]
        m = m + sigma * (w @ best)
        p = (1 - c) * p + math.sqrt(c * (2 - c) * mu_eff) * (w @ best)
        sigma *= math.exp(c / damping * (np.linalg.norm(p) / expected - 1))
    return m, sigma


def test_one_turn_is_a_plain_transcription_of_the_mean_and_csa():
    d, n, sigma = 7, 10, 0.7
    es = search(dimension=d, popsize=n, sigma=sigma)
    losses = random_losses(1, n)
    z = Draws(3).normal("cma_es", 1, {"layer.0/0": (n, d)}, dtype=torch.float64)["layer.0/0"]
    # The package spreads the eigenvalues of its first C a little, by a factor of up to exp(1e-4).
    torch.testing.assert_close(es.ask(1), sigma * z, rtol=1e-4, atol=0)
    es.tell(losses)
    mean, new_sigma = plain_csa(d, n, sigma, [z.numpy()], [losses])
    np.testing.assert_allclose(es.point("mean").numpy(), mean, rtol=1e-3)
    assert es.numbers()["sigma"] == pytest.approx(new_sigma, rel=1e-4)


def test_at_500_numbers_csa_hardly_moves_sigma_and_agrees_with_an_es_without_a_covariance():
    d, n = 500, 20
    losses = [random_losses(turn, n) for turn in range(16)]
    es = search(dimension=d, popsize=n, sigma=1.0, diagonal=True)
    draws, z = Draws(3), []
    for turn in range(16):
        es.ask(turn)
        es.tell(losses[turn])
        drawn = draws.normal("cma_es", turn, {"layer.0/0": (n, d)}, dtype=torch.float64)
        z.append(drawn["layer.0/0"].numpy())
    mean, sigma = plain_csa(d, n, 1.0, z, losses)
    assert es.numbers()["sigma"] == pytest.approx(0.86, abs=0.015)
    assert es.numbers()["sigma"] == pytest.approx(sigma, abs=0.005)
    assert np.corrcoef(es.point("mean").numpy(), mean)[0, 1] > 0.999


def test_with_a_full_covariance_it_stays_near_the_identity():
    es = search(dimension=500, popsize=20, sigma=1.0)
    for turn in range(8):
        es.ask(turn)
        es.tell(random_losses(turn, 20))
    C = es._current()._es.sm.C
    assert np.abs(np.diag(C) - 1).max() < 1e-3
    assert np.linalg.norm(C - np.diag(np.diag(C)), 2) < 0.01


def test_the_two_step_size_rules_differ():
    csa, tpa = (
        turns(search(dimension=400, sigma=1.0, diagonal=True, step_size=rule), range(6))
        for rule in ("csa", "tpa")
    )
    assert tpa.numbers()["sigma"] < csa.numbers()["sigma"] < 1


@pytest.mark.parametrize("rule", ["csa", "tpa"])
def test_it_finds_the_minimum_of_a_sphere(rule):
    es = turns(search(step_size=rule), range(60))
    assert es.best_loss < 1e-2
    assert shifted_sphere(es.point("best_ever")[None]) == [es.best_loss]


@pytest.mark.parametrize("options", [{}, {"step_size": "tpa"}, {"diagonal": True, "bounds": 2.0}])
def test_a_state_brings_it_back_bitwise_also_between_ask_and_tell(options):
    es = turns(search(**options), (2, 3, 5, 8))
    asked = es.ask(9)
    again = search(**options)
    again.load_state(es.state())
    assert torch.equal(again.ask(9), asked)
    for each in (es, again):
        each.tell(shifted_sphere(asked))
    third = search(**options)
    third.load_state(es.state())
    for other in (again, third):
        assert other.best_loss == es.best_loss
        for which in CmaEs.points:
            assert torch.equal(other.point(which), es.point(which))
        assert other.numbers() == es.numbers()
        assert torch.equal(other.ask(10), es.ask(10))


@pytest.mark.parametrize("rule", ["csa", "tpa"])
def test_a_turn_that_is_never_told_leaves_no_trace(rule):
    es, skipping = (turns(search(step_size=rule), range(4)) for _ in range(2))
    skipping.ask(4)
    skipping.ask(5)
    assert torch.equal(skipping.ask(6), es.ask(6))
    resumed = search(step_size=rule)
    resumed.load_state(skipping.state())
    for each in (es, skipping, resumed):
        turns(each, (6,))
    assert torch.equal(skipping.ask(7), es.ask(7))
    assert torch.equal(resumed.ask(7), es.ask(7))


def test_to_ask_twice_is_to_ask_once():
    es = turns(search(step_size="tpa"), range(3))
    first = es.ask(3)
    first_copy = first.clone()
    first.zero_()
    assert torch.equal(es.ask(3), first_copy)
    with pytest.raises(ValueError, match="not after turn 2"):
        es.ask(2)


def test_draws_depend_on_the_seed_the_name_and_the_turn_alone():
    points = search(seed=0).ask(1)
    assert torch.equal(points, search(seed=0).ask(1))
    for other in (search(seed=1).ask(1), search(seed=0, name="layer.1").ask(1)):
        assert abs(np.corrcoef(points.flatten(), other.flatten())[0, 1]) < 0.6
        assert not torch.equal(points, other)
    assert not torch.equal(points, search(seed=0).ask(2))


@pytest.mark.parametrize("rule", ["csa", "tpa"])
def test_nothing_global_is_touched_and_nothing_is_written(rule, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    np.random.seed(5)
    torch.manual_seed(5)
    before = np.random.get_state()[1].copy(), np.random.get_state()[2], torch.get_rng_state()
    turns(search(step_size=rule), range(8))
    after = np.random.get_state()[1], np.random.get_state()[2], torch.get_rng_state()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("rule", ["csa", "tpa"])
def test_flat_losses_never_stop_it(rule):
    es = turns(search(step_size=rule), range(25), lambda points: [0.5] * len(points))
    assert es.ask(25).isfinite().all()
    assert es.best_loss == 0.5
    # With equal losses two-point adaptation does not prefer a longer step.
    assert rule == "csa" or es.numbers()["sigma"] == 0.5


def test_failed_points_rank_last():
    es, finite = search(), search()
    z = es.ask(1)
    finite.ask(1)
    es.tell([INF, 3, 1, INF, 2, 5, 4, INF])
    finite.tell([1e30, 3, 1, 2e30, 2, 5, 4, 3e30])
    assert torch.equal(es.ask(2), finite.ask(2))
    assert torch.equal(es.point("best_ever"), z[2])
    es.tell([INF] * 7 + [9])
    assert es.ask(3).isfinite().all()
    assert torch.equal(es.point("best_ever"), z[2])
    assert not torch.equal(es.point("generation_best"), z[2])
    again = search()
    again.load_state(es.state())
    assert torch.equal(again.ask(3), es.ask(3))


@pytest.mark.parametrize("told", [[INF] * 8, [math.nan] + [1.0] * 7, [1.0] * 7])
def test_losses_that_no_turn_can_have_are_refused(told):
    es = search()
    es.ask(1)
    with pytest.raises(ValueError, match="loss"):
        es.tell(told)


def test_there_is_no_point_before_the_first_turn():
    es = search()
    assert es.best_loss == INF
    assert es.numbers() == {"sigma": 0.5}
    with pytest.raises(ValueError, match="before its first full turn"):
        es.point("best_ever")


def test_points_stay_within_bounds():
    es = search(bounds=0.75, sigma=0.5)
    for turn in range(12):
        points = es.ask(turn)
        assert points.abs().max() <= 0.75
        es.tell((-points.sum(1)).tolist())
    assert es.point("mean").abs().max() <= 0.75
    assert es.point("mean").mean() > 0.5


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"dimension": 0}, "dimension"),
        ({"popsize": 1}, "popsize"),
        ({"popsize": 2, "step_size": "tpa"}, "popsize"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": math.nan}, "sigma"),
        ({"bounds": -1.0}, "bounds"),
        ({"bounds": 0.5, "sigma": 0.5}, "sigma"),
        ({"step_size": "msr"}, "step_size"),
    ],
)
def test_a_value_that_is_not_allowed_is_one_line(options, key):
    with pytest.raises(BadValueError, match=f"^{key}: given"):
        search(**options)


@settings(deadline=None, max_examples=12, derandomize=True)
@given(
    d=st.integers(1, 12),
    n=st.integers(2, 30),
    diagonal=st.booleans(),
    rule=st.sampled_from(["csa", "tpa"]),
    told=st.lists(st.sampled_from([0.0, 1.0, 2.0, INF, None]), min_size=1, max_size=6),
    bounds=st.sampled_from([None, 3.0]),
)
def test_any_size_with_any_losses_and_skipped_turns_goes_on(d, n, diagonal, rule, told, bounds):
    """And depends only on what was told: the search that skipped no turn is the same."""
    n = max(n, 3) if rule == "tpa" else n
    options = {"dimension": d, "popsize": n, "diagonal": diagonal, "bounds": bounds}
    options["step_size"] = rule
    es, straight = search(**options), search(**options)
    for turn, loss in enumerate(told):
        points = es.ask(turn)
        assert points.shape == (n, d)
        assert points.isfinite().all()
        if loss is not None:
            losses = [loss, 1.0] + [loss, 0.5] * n
            assert torch.equal(straight.ask(turn), points)
            for each in (es, straight):
                each.tell(losses[:n])
    assert torch.equal(es.ask(99), straight.ask(99))


def test_2000_numbers_and_100_points():
    es = turns(search(dimension=2000, popsize=100, diagonal=True), range(1))
    assert es.ask(1).shape == (100, 2000)


def test_without_matplotlib_which_is_optional_nothing_is_said(monkeypatch, recwarn, capfd):
    for name in [name for name in sys.modules if name.partition(".")[0] == "cma"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    search().ask(0)
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")
