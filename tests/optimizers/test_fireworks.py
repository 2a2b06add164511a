"""Fireworks: the published rules, in exactly popsize calls a turn."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lozo_bench.errors import BadValueError
from lozo_bench.optimizers.fireworks import Fireworks
from lozo_bench.randomness.draws import Draws

INF, NAN = math.inf, math.nan


def search(seed=3, name="layer.0", kind=Fireworks, **options):
    options = {"dimension": 6, "sigma": 0.5, "popsize": 12, "turns": 50} | options
    return kind(Draws(seed), name, **options)


def shifted_sphere(points):
    return ((points - 1) ** 2).sum(1).tolist()


def turn_of(fireworks, turn, loss=shifted_sphere):
    """Make a whole turn and return the points of each of its asks."""
    asked = []
    for _ in range(fireworks.asks):
        asked.append(fireworks.ask(turn))
        fireworks.tell(loss(asked[-1]))
    return asked


def put(fireworks, **state):
    """Put the fireworks where a test wants them."""
    fireworks.load_state(
        fireworks.state() | {k: torch.tensor(x, dtype=torch.float64) for k, x in state.items()}
    )


# Bare bones fireworks


@pytest.fixture
def niapy():
    """NiaPy's modules. Its import adds a handler to the root logger, which is taken away again."""
    handlers = list(logging.root.handlers)
    from niapy.algorithms.basic import BareBonesFireworksAlgorithm
    from niapy.problems import Sphere
    from niapy.task import Task
    from niapy.util.repair import rand

    logging.root.handlers[:] = handlers
    return BareBonesFireworksAlgorithm, Sphere, Task, rand


class Recorder(np.random.Generator):
    """Keeps every uniform number that it gives, in [0, 1), and what it was made of it."""

    drawn: list

    def uniform(self, low, high, size=None):
        u = self.random(np.shape(low) if size is None else size)
        self.drawn.append((u, low + (high - low) * u))
        return self.drawn[-1][1].copy()


class Fed(Fireworks):
    """Takes its numbers from a test."""

    def uniform(self, turn, use, shape):
        fed = self.feed.get(use) if hasattr(self, "feed") else None
        return super().uniform(turn, use, shape) if fed is None else torch.tensor(fed).view(shape)


def redrawn(sparks, others, bound):
    """Return numbers of the shape of the sparks, with NiaPy's new ones where it drew them."""
    numbers = np.full_like(sparks, NAN)
    for row, (below, above) in enumerate(zip(others[::2], others[1::2], strict=True)):
        numbers[row, sparks[row] < -bound] = below[0]
        numbers[row, sparks[row] > bound] = above[0]
    return numbers


def test_50_iterations_equal_niapy_to_the_bit(niapy):
    """NiaPy 2.7.1: the amplitude starts at the width of the box, the factors are 1.5 and 0.5."""
    algorithm_class, sphere, task_class, rand = niapy
    d, n, bound = 5, 8, 2.0
    problem = sphere(dimension=d, lower=-bound, upper=bound)
    task = task_class(problem, repair_function=rand)
    niapys = algorithm_class(num_sparks=n)
    niapys.rng = Recorder(np.random.PCG64(7))
    niapys.rng.drawn = []
    x, fitness, params = niapys.init_population(task)
    ours = search(
        kind=Fed, dimension=d, popsize=n, bounds=bound, amplify=1.5, reduce=0.5, reevaluate=False
    )
    put(ours, P=x, F=fitness[None], A=[[2 * bound]])
    amplitudes, outside = set(), 0
    for turn in range(50):
        niapys.rng.drawn = []
        x, fitness, _, _, params = niapys.run_iteration(task, x, fitness, x, fitness, **params)
        (u, sparks), *others = niapys.rng.drawn
        outside += sum(len(each[0]) for each in others)
        ours.feed = {"sparks": u, "sparks outside": redrawn(sparks, others, bound)}
        points = ours.ask(turn)
        ours.tell([problem.evaluate(point) for point in points.numpy()])
        state = ours.state()
        assert np.array_equal(state["P"][0], x.flatten())
        assert state["F"].item() == fitness
        assert (params["amplitude"] == state["A"].item()).all()
        amplitudes.add(state["A"].item())
    assert outside > 20
    assert len(amplitudes) > 10
    assert fitness < 1e-2


def test_sparks_are_as_long_as_normal_draws():
    points = search(dimension=2000, sigma=0.7, popsize=20).ask(0)
    assert torch.equal(points[0], torch.zeros(2000, dtype=torch.float64))
    assert points.abs().max() <= math.sqrt(3) * 0.7
    torch.testing.assert_close(points[1:].std(), torch.tensor(0.7).double(), rtol=0.02, atol=0)
    assert abs(points[1:].mean()) < 0.02


def test_the_amplitude_grows_after_an_improvement_and_shrinks_otherwise():
    fireworks = search(amplitude=2.0)
    fireworks.ask(0)
    fireworks.tell([5.0] + [4.0] * 11)
    assert fireworks.numbers() == {"amplitude": 2.0 * 1.2}
    fireworks.ask(1)
    fireworks.tell([4.0] * 12)
    assert fireworks.numbers() == {"amplitude": 2.0 * 1.2 * 0.9}


def test_a_firework_is_scored_in_place_of_a_spark_if_its_loss_is_not_known():
    known, again = search(reevaluate=False), search(reevaluate=True)
    first = known.ask(0)
    assert torch.equal(first, again.ask(0))
    for each in (known, again):
        each.tell([3.0, 2.0] + [4.0] * 10)
    second, second_again = known.ask(1), again.ask(1)
    assert torch.equal(second_again[0], first[1])
    assert not torch.equal(second[0], first[1])
    assert torch.equal(second[1:], second_again[1:])


def test_scored_again_a_firework_is_not_left_for_a_worse_point_when_the_loss_has_fallen():
    known, again = search(reevaluate=False), search(reevaluate=True)
    for each in (known, again):
        each.ask(0)
        each.tell([10.0] + [11.0] * 11)
        each.ask(1)
        each.tell([5.0] + [6.0] * 11)  # the loss of everything has fallen by 5
    assert torch.equal(again.state()["P"], torch.zeros(1, 6, dtype=torch.float64))
    assert known.state()["P"].abs().max() > 0
    assert again.numbers()["amplitude"] < known.numbers()["amplitude"]


# LoTFWA


def test_a_guiding_spark_goes_from_the_worst_sparks_to_the_best():
    """In code that was published with the paper, it goes the other way."""
    fireworks = search(variant="lotfwa", fireworks=2, popsize=22, reevaluate=False)
    put(fireworks, P=[[0.0] * 6, [1.0] * 6], F=[[1.0], [2.0]])
    slope = torch.tensor([1.0, -2.0, 3.0, 0.5, -1.0, 2.0]).double()
    sparks = fireworks.ask(0)
    fireworks.tell((sparks @ slope).tolist())
    guides = fireworks.ask(0)
    for own, guide, P in zip(sparks.view(2, 10, 6), guides, (0, 1), strict=True):
        order = (own @ slope).argsort()
        expected = P + own[order[:2]].mean(0) - own[order[-2:]].mean(0)
        torch.testing.assert_close(guide, expected)
        assert guide @ slope < P * slope.sum()


def test_a_guiding_spark_that_is_the_best_point_becomes_the_firework():
    fireworks = search(variant="lotfwa")
    sparks = fireworks.ask(0)
    fireworks.tell([2.0] + [3.0] * 9)
    guides = fireworks.ask(0)
    fireworks.tell([1.0, INF])
    assert torch.equal(fireworks.state()["P"][0], guides[0])
    assert torch.equal(fireworks.point("generation_best"), guides[0])
    assert fireworks.state()["F"].flatten().tolist() == [1.0, 3.0]
    assert torch.equal(sparks[0], torch.zeros(6).double())


@pytest.mark.parametrize("bounds", [None, 5.0])
def test_a_firework_that_will_not_catch_up_starts_anew_at_the_next_turn(bounds):
    """It gains 1 in a turn and is 20 behind, with 10 turns left; with 30 left it goes on."""
    for turns, anew in ((11, True), (31, False)):
        fireworks = search(variant="lotfwa", turns=turns, reevaluate=False, bounds=bounds)
        put(fireworks, P=[[0.0] * 6, [1.0] * 6], F=[[10.0], [31.0]], A=[[0.1], [0.1]])
        turn_of(fireworks, 0, lambda points: ([10.0] * 5 + [30.0] * 5)[-len(points) :])
        F, A, P = (fireworks.state()[name] for name in "FAP")
        assert F[1].isnan().item() is anew
        if not anew:
            assert A.flatten().tolist() == pytest.approx([0.09, 0.12])
            continue
        assert A.flatten().tolist() == pytest.approx([0.09, math.sqrt(3) * 0.5])
        assert P[1].abs().max() <= (bounds or math.sqrt(3) * 0.05)
        assert P[1].abs().max() > 0.5 * (bounds or math.sqrt(3) * 0.05)
        assert torch.equal(fireworks.ask(1).view(2, 5, 6)[1, 0], P[1])


def test_a_firework_whose_points_all_failed_starts_anew():
    fireworks = search(variant="lotfwa")
    turn_of(fireworks, 0, lambda points: [1.0] * (len(points) // 2) + [INF] * (len(points) // 2))
    assert fireworks.state()["F"].isnan().flatten().tolist() == [False, True]
    turn_of(fireworks, 1)
    assert fireworks.state()["F"].isfinite().all()


def test_lotfwa_falls_below_a_hundredth_of_the_start_on_a_sphere_in_2000_calls():
    """With 2 fireworks, popsize 10, sigma 0.3 and reduce 0.8, from sqrt(50) away."""
    fireworks = search(dimension=50, sigma=0.3, popsize=10, turns=200, variant="lotfwa", reduce=0.8)
    for turn in range(200):
        turn_of(fireworks, turn)
    assert fireworks.best_loss < 0.01 * 50
    assert shifted_sphere(fireworks.point("best_ever")[None]) == [fireworks.best_loss]


# Both


EVERY = [
    {"variant": "bbfwa"},
    {"variant": "lotfwa", "fireworks": 2},
    {"variant": "lotfwa", "fireworks": 4, "popsize": 20},
    {"variant": "lotfwa", "bounds": 1.5},
]


@pytest.mark.parametrize("reevaluate", [False, True])
@pytest.mark.parametrize("options", EVERY)
def test_every_turn_has_exactly_popsize_points_also_when_fireworks_start_anew(options, reevaluate):
    fireworks = search(seed=0, reevaluate=reevaluate, **({"turns": 30} | options))
    calls = anew = 0
    for turn in range(50):
        anew += fireworks.state()["F"].isnan().sum().item()
        calls += sum(len(points) for points in turn_of(fireworks, turn))
        assert calls == (turn + 1) * options.get("popsize", 12)
    assert (anew > len(fireworks.state()["F"])) == (options["variant"] == "lotfwa")


@pytest.mark.parametrize("reevaluate", [False, True])
@pytest.mark.parametrize("options", EVERY)
def test_a_state_brings_it_back_bitwise_between_any_two_calls(options, reevaluate):
    options = options | {"reevaluate": reevaluate}
    fireworks = search(**options)
    for turn in (2, 3, 5):
        turn_of(fireworks, turn)

    def returned():
        again = search(**options)
        again.load_state(fireworks.state())
        return again

    same = [fireworks, returned()]
    for _ in range(fireworks.asks):
        asked = fireworks.ask(6)
        same.append(returned())
        assert all(torch.equal(each.ask(6), asked) for each in same[:-1])
        for each in same:
            each.tell(shifted_sphere(asked))
        same.append(returned())
    states = [each.state() for each in same]
    for each, state in zip(same, states, strict=True):
        for name, x in states[0].items():
            assert torch.equal(x.nan_to_num(-1), state[name].nan_to_num(-1)), name
        assert torch.equal(each.ask(7), fireworks.ask(7))
        assert each.best_loss == fireworks.best_loss
        assert each.numbers() == fireworks.numbers()
        for which in Fireworks.points:
            assert torch.equal(each.point(which), fireworks.point(which))


@pytest.mark.parametrize("options", EVERY)
def test_a_turn_that_is_not_told_in_full_leaves_no_trace(options):
    straight, skipping = search(**options), search(**options)
    for each in (straight, skipping):
        turn_of(each, 0)
    points = skipping.ask(1)  # all of them fail: never told
    if skipping.asks == 2:
        skipping.ask(2)
        skipping.tell([0.0] * len(points))  # better than all others, and given up
    assert skipping.best_loss == straight.best_loss
    for turn in (3, 4):
        for one, other in zip(turn_of(straight, turn), turn_of(skipping, turn), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("options", EVERY)
def test_flat_losses_only_shrink_the_amplitude(options):
    fireworks = search(**options)
    for turn in range(40):
        turn_of(fireworks, turn, lambda points: [0.25] * len(points))
    assert fireworks.numbers()["amplitude"] == pytest.approx(math.sqrt(3) * 0.5 * 0.9**40)
    assert fireworks.best_loss == 0.25
    assert fireworks.point("best_ever").tolist() == [0.0] * 6


def test_draws_depend_on_the_seed_the_name_and_the_turn_alone():
    points = search(seed=0).ask(1)
    assert torch.equal(points, search(seed=0).ask(1))
    for other in (search(seed=1), search(seed=0, name="layer.1")):
        assert not torch.isclose(points[1:], other.ask(1)[1:]).any()
    assert not torch.isclose(points[1:], search(seed=0).ask(2)[1:]).any()


def test_calls_out_of_turn_are_refused():
    fireworks = search()
    with pytest.raises(ValueError, match="tell without ask"):
        fireworks.tell([1.0] * 12)
    with pytest.raises(ValueError, match="before its first full turn"):
        fireworks.point("best_ever")
    with pytest.raises(ValueError, match="no mean"):
        fireworks.point("mean")
    turn_of(fireworks, 4)
    with pytest.raises(ValueError, match="not after turn 4"):
        fireworks.ask(4)
    fireworks.ask(5)
    for losses in ([INF] * 12, [1.0] * 11, [NAN] + [1.0] * 11):
        with pytest.raises(ValueError, match="loss"):
            fireworks.tell(losses)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"dimension": 0}, "dimension"),
        ({"turns": 0}, "turns"),
        ({"variant": "fwa"}, "variant"),
        ({"fireworks": 2}, "fireworks"),
        ({"variant": "lotfwa", "fireworks": 1}, "fireworks"),
        ({"variant": "lotfwa", "popsize": 13}, "popsize"),
        ({"variant": "lotfwa", "fireworks": 4}, "popsize"),
        ({"popsize": 1}, "popsize"),
        ({"sigma": -1.0}, "sigma"),
        ({"amplitude": 0.0}, "amplitude"),
        ({"bounds": INF}, "bounds"),
        ({"amplify": 0.9}, "amplify"),
        ({"reduce": 0.0}, "reduce"),
    ],
)
def test_a_value_that_is_not_allowed_is_one_line(options, key):
    with pytest.raises(BadValueError, match=f"^{key}: given"):
        search(**options)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    d=st.integers(1, 9),
    each=st.integers(4, 8),
    k=st.integers(1, 3),
    bounds=st.sampled_from([None, 0.02, 0.4]),
    reevaluate=st.booleans(),
    seed=st.integers(0, 3),
    kind=st.sampled_from(["falling", "failing", "ties"]),
)
def test_whatever_the_losses_points_are_finite_in_the_box_and_the_best_is_the_best(
    d, each, k, bounds, reevaluate, seed, kind
):
    fireworks = search(
        seed=seed, dimension=d, popsize=k * each, variant="lotfwa" if k > 1 else "bbfwa",
        fireworks=k, bounds=bounds, reevaluate=reevaluate, turns=6,
    )  # fmt: skip
    told = []
    for turn in range(6):
        for ask in range(fireworks.asks):
            points = fireworks.ask(turn)
            assert points.isfinite().all()
            assert bounds is None or points.abs().max() <= bounds
            losses = {
                "falling": [float(-turn - i) for i in range(len(points))],
                "failing": [INF if (i + turn) % 3 or ask else 1.0 for i in range(len(points))],
                "ties": [float(x > 0) for x in points[:, 0]],
            }[kind]
            fireworks.tell(losses)
            told += zip(losses, points, strict=True)
    best = min(told, key=lambda each: each[0])
    assert fireworks.best_loss == best[0]
    assert torch.equal(fireworks.point("best_ever"), best[1])
