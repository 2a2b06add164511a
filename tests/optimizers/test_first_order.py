"""The base of the first-order methods: micro-batches, clipping, loss scales, learning rates."""

from __future__ import annotations

import math

import pytest
import torch
from methods import STEPPING, ZEROTH_ORDER
from test_every_optimizer import make, trainable
from toys import run, score

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.optimizers import first_order
from lozo_bench.optimizers.adamw import AdamW
from lozo_bench.optimizers.sgd import Sgd
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.randomness.draws import Draws

FIRST_ORDER = [name for name in STEPPING if name not in ZEROTH_ORDER]


def vector(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def linear(w, *gradients):
    """Return one micro-batch per gradient g: a single example whose loss is w . g."""

    def part(gradient):
        return MicroBatch(1, 1, lambda copies: (w * torch.tensor(gradient)).sum()[None, None])

    return [part(gradient) for gradient in gradients]


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_a_changed_lr_is_used_in_the_next_step(name):
    engine, loss = trainable()
    optimizer = make(name, engine, lr=1e-2)
    optimizer.lr = 0.0
    before = engine.state()
    report = run(optimizer, engine, loss, steps=1)[0]
    torch.testing.assert_close(engine.state(), before, rtol=0, atol=0)
    assert (report.forwards, report.backwards) == (1, 1)


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_only_matrices_decay(name):
    engine = InPlace({"w": vector(1.0, 2.0).detach().view(1, 2).requires_grad_(), "b": vector(1.0)})
    optimizer = make(name, engine, lr=0.1, weight_decay=0.5)
    run(optimizer, engine, lambda: 0 * (engine.X["w"].sum() + engine.X["b"].sum()), steps=1)
    assert engine.X["w"].tolist() == [pytest.approx([0.95, 1.9])]
    assert engine.X["b"].tolist() == [1.0]


def test_the_gradient_of_all_micro_batches_together_is_clipped():
    """(6, 0) and (0, 8) have the mean (3, 4), whose norm is 5, though each alone is longer."""
    w = vector(0.0, 0.0)
    engine = InPlace({"w": w})
    parts = linear(w, (6.0, 0.0), (0.0, 8.0))
    loose, tight = (Sgd(engine, Draws(0), lr=1.0, autocast=None, max_grad_norm=c) for c in (6, 1))
    report = loose.step(Score(engine, parts))
    assert report.scalars == {"grad_norm": pytest.approx(5.0)}
    assert w.tolist() == pytest.approx([-3.0, -4.0])
    tight.step(Score(engine, parts))
    assert w.tolist() == pytest.approx([-3.6, -4.8])


def test_a_gradient_that_is_not_finite_raises_and_changes_nothing():
    w = vector(1.0)
    engine = InPlace({"w": w})
    optimizer = AdamW(engine, Draws(0), lr=1.0, autocast=None)
    with pytest.raises(NonFiniteLossError, match="the norm of this step's gradient is inf"):
        optimizer.step(Score(engine, [steep(w)]))
    assert w.tolist() == [1.0]
    assert not optimizer.moments.state


def steep(w):
    """Return a micro-batch with a loss of 0 and an infinite slope: the square root at 0."""
    return MicroBatch(1, 1, lambda copies: (w - 1).sqrt().sum()[None, None])


def test_loss_scaling_does_not_change_the_step_or_the_reported_loss():
    w, v = vector(0.3, -0.7), vector(0.3, -0.7)
    plain = AdamW(InPlace({"w": w}), Draws(0), lr=0.1, autocast="bf16")
    scaled = AdamW(InPlace({"w": v}), Draws(0), lr=0.1, autocast="fp16")
    for _ in range(3):
        one = plain.step(score(InPlace({"w": w}), lambda: (w**2).sum()))
        other = scaled.step(score(InPlace({"w": v}), lambda: (v**2).sum()))
        assert one.loss == other.loss
        assert {**one.scalars, "loss_scale": 65536.0} == other.scalars
    assert w.tolist() == v.tolist()


def test_the_loss_scale_rises_and_falls_as_in_torchs_grad_scaler(monkeypatch):
    assert torch.amp.GradScaler("cpu").get_growth_interval() == first_order._STEPS_TO_DOUBLE
    monkeypatch.setattr(first_order, "_STEPS_TO_DOUBLE", 5)
    factor = 1.0

    class Spiked(torch.autograd.Function):
        """The identity, whose gradient is multiplied by ``factor``."""

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * factor

    w, v = vector(1.0), vector(1.0)
    optimizer = Sgd(InPlace({"w": w}), Draws(0), lr=0.1, autocast="fp16", max_grad_norm=1e9)
    reference = torch.optim.SGD([v], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", growth_interval=5)
    ours, theirs = [], []
    for step in range(20):
        factor = math.inf if step in (1, 2, 7) else 1.0
        optimizer.step(score(InPlace({"w": w}), lambda: (Spiked.apply(w) ** 2 / 1e3).sum()))
        reference.zero_grad()
        scaler.scale((Spiked.apply(v) ** 2 / 1e3).sum()).backward()
        scaler.step(reference)
        scaler.update()
        ours.append(optimizer.loss_scale)
        theirs.append(scaler.get_scale())
    assert ours == theirs
    assert [scale / 2.0**16 for scale in ours] == [
        1, 1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8, 1 / 8, 1 / 4,
        1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 2, 1 / 2, 1 / 2,
    ]  # fmt: skip
    assert w.tolist() == v.tolist()


def test_an_overflow_at_a_loss_scale_of_one_raises():
    w = vector(1.0)
    engine = InPlace({"w": w})
    optimizer = Sgd(engine, Draws(0), lr=1.0, autocast="fp16")
    for _ in range(16):
        report = optimizer.step(Score(engine, [steep(w)]))
        assert "grad_norm" not in report.scalars  # it is written as JSON, which has no infinity
    assert optimizer.loss_scale == 1.0
    with pytest.raises(NonFiniteLossError):
        optimizer.step(Score(engine, [steep(w)]))
    assert w.tolist() == [1.0]


def test_the_loss_scale_and_its_step_count_are_part_of_the_state():
    w = vector(1.0)
    engine = InPlace({"w": w})
    optimizer = Sgd(engine, Draws(0), lr=0.1, autocast="fp16")
    optimizer.step(Score(engine, [steep(w)]))
    optimizer.step(Score(engine, linear(w, (1.0,))))
    resumed = Sgd(engine, Draws(0), lr=0.1, autocast="fp16")
    load_optimizer_state(resumed, optimizer_state(optimizer))
    assert (resumed.loss_scale, resumed.steps_at_scale) == (2.0**15, 1)


@pytest.mark.parametrize("name", FIRST_ORDER)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_keeps_every_bit_also_for_half_precision_weights(name, dtype):
    """torch's own `load_state_dict` would round the float32 state of half-precision weights."""
    w = torch.linspace(-1, 1, 12).view(3, 4).to(dtype).requires_grad_()
    engine = InPlace({"w": w})
    changes = {"momentum": 0.9} if name == "sgd" else {}
    optimizer = make(name, engine, lr=1e-3, **changes)
    run(optimizer, engine, lambda: (w.float() ** 3).sum(), steps=3)
    state = optimizer_state(optimizer)
    resumed = make(name, engine, lr=1e-3, **changes)
    load_optimizer_state(resumed, state)
    again = optimizer_state(resumed)
    assert {k: x.dtype for k, x in again.items()} == {k: x.dtype for k, x in state.items()}
    assert all(torch.equal(again[key], x) for key, x in state.items())
    run(resumed, engine, lambda: (w.float() ** 3).sum(), steps=1)
    assert all(torch.equal(x, optimizer_state(optimizer)[key]) for key, x in state.items())
