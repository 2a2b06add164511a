"""EGGROLL against its equations."""

from __future__ import annotations

import pytest
import torch
from toys import quadratic, run, score

from lozo_bench.engine.in_place import InPlace
from lozo_bench.errors import UserError
from lozo_bench.optimizers.eggroll import Eggroll
from lozo_bench.randomness.draws import Draws


def factors(pairs, rank=2):
    def draw(role, n, columns, name):
        return Draws(0).normal(role, 0, {name: (n, columns)}, dtype=torch.float64)[name]

    return (
        draw("U", 3, pairs * rank, "w"),
        draw("V", 4, pairs * rank, "w"),
        draw("e", 3, pairs, "b"),
    )


def step(population, fitness):
    """Make one step on a linear loss; return the weights after it, each E_i and its slope."""
    g = Draws(9).normal("g", 0, {"w": (3, 4), "b": (3,)}, dtype=torch.float64)
    engine = InPlace({name: torch.zeros_like(x) for name, x in g.items()})
    loss = score(engine, lambda: (g["w"] * engine.X["w"]).sum() + (g["b"] * engine.X["b"]).sum())
    options = {"lr": 0.5, "sigma": 1e-2, "rank": 2, "population": population, "fitness": fitness}
    report = Eggroll(engine, Draws(0), **options).step(loss)
    U, V, e = factors(population // 2)
    E = [
        (U[:, 2 * i : 2 * i + 2] @ V[:, 2 * i : 2 * i + 2].T / 2**0.5, e[:, i])
        for i in range(population // 2)
    ]
    slopes = [float((g["w"] * w).sum() + (g["b"] * b).sum()) for w, b in E]
    return engine.X, E, slopes, report


def test_a_step_is_the_antithetic_estimate_of_the_gradient():
    X, E, slopes, report = step(population=6, fitness="raw")
    wanted = sum(-0.5 * c * w / 3 for c, (w, _) in zip(slopes, E, strict=True))
    torch.testing.assert_close(X["w"], wanted)
    wanted = sum(-0.5 * c * b / 3 for c, (_, b) in zip(slopes, E, strict=True))
    torch.testing.assert_close(X["b"], wanted)
    assert report.forwards == 6


def test_zscores_remove_the_scale_of_the_loss():
    X, E, slopes, _ = step(population=4, fitness="zscore")
    f = torch.tensor([-c * 1e-2 for c in slopes] + [c * 1e-2 for c in slopes])
    s = (f - f.mean()) / f.std(correction=0)
    wanted = sum(0.5 / (4 * 1e-2) * float(s[i] - s[i + 2]) * w for i, (w, _) in enumerate(E))
    torch.testing.assert_close(X["w"], wanted, rtol=1e-5, atol=1e-8)


def test_the_update_has_a_higher_rank_than_any_member():
    engine, loss = quadratic(12)
    run(Eggroll(engine, Draws(0), lr=0.1, sigma=1e-2, rank=1, population=8), engine, loss, steps=1)
    assert torch.linalg.matrix_rank(engine.X["w"]) == 4


@pytest.mark.parametrize("population", [0, 3, -2])
def test_an_odd_or_empty_population_is_refused(population):
    with pytest.raises(UserError, match=r"^population: given .*; allowed: an even number >= 2"):
        Eggroll(InPlace({}), Draws(0), lr=1, sigma=1, rank=1, population=population)
