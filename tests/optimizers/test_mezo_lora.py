"""MeZO on LoRA against explicit adapter matrices."""

from __future__ import annotations

import pytest
import torch
from toys import score

from lozo_bench.engine.in_place import InPlace
from lozo_bench.errors import UserError
from lozo_bench.optimizers.mezo_lora import MezoLora
from lozo_bench.randomness.draws import Draws

OPTIONS = {"lr": 0.05, "eps": 1e-2, "rank": 2, "alpha": 6.0, "targets": "q"}


def weights():
    return Draws(7).normal("W", 0, {"q": (5, 4), "other": (5, 4)}, dtype=torch.float64)


def loss_at(W):
    return (torch.tanh(W["q"]) ** 2).sum() + (W["other"] * W["q"]).sum()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_follow_the_equations(weight_decay):
    engine = InPlace(weights())
    optimizer = MezoLora(engine, Draws(0), **OPTIONS, weight_decay=weight_decay)
    A, B, W = optimizer.A["q"].clone(), torch.zeros(5, 2).double(), weights()
    assert torch.equal(optimizer.B["q"], B)

    def loss_off_by(a, Z_A, Z_B):
        adapted = W["q"] + 3.0 * (B + a * Z_B) @ (A + a * Z_A).T
        return float(loss_at({**W, "q": adapted}))

    for t in range(4):
        Z_A = Draws(0).normal("Z_A", t, {"q": (4, 2)}, dtype=torch.float64)["q"]
        Z_B = Draws(0).normal("Z_B", t, {"q": (5, 2)}, dtype=torch.float64)["q"]
        c = (loss_off_by(1e-2, Z_A, Z_B) - loss_off_by(-1e-2, Z_A, Z_B)) / 2e-2
        report = optimizer.step(score(engine, lambda: loss_at(engine.X)))
        assert report.scalars["projected_grad"] == pytest.approx(c, rel=1e-9)
        keep = 1 - 0.05 * weight_decay
        A, B = keep * A - 0.05 * c * Z_A, keep * B - 0.05 * c * Z_B
    with engine.applied():
        torch.testing.assert_close(engine.X["q"], W["q"] + 3.0 * B @ A.T)
        torch.testing.assert_close(engine.X["other"], W["other"], rtol=0, atol=0)


def test_the_initial_A_has_the_variance_of_loras_initialization():
    engine = InPlace({"q": torch.zeros(3, 3000, dtype=torch.float64)})
    A = MezoLora(engine, Draws(0), **{**OPTIONS, "rank": 8}).A["q"]
    assert A.var() == pytest.approx(1 / (3 * 3000), rel=0.03)


def test_a_pattern_that_matches_no_matrix_is_refused():
    with pytest.raises(UserError, match=r"^targets: given 'v'; allowed: part of a matrix's name"):
        MezoLora(InPlace(weights()), Draws(0), **{**OPTIONS, "targets": "v"})
    with pytest.raises(UserError, match=r"^targets: given '\('; allowed: a regular expression"):
        MezoLora(InPlace(weights()), Draws(0), **{**OPTIONS, "targets": "("})
