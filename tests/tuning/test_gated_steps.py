"""A gate that is off keeps weights and moments as they are, whatever the optimizer does."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from test_every_tuning import CONF
from test_gates import gated, only
from tiny_models import at_real_tokens, logits, rows

from lozo_bench.config.build import build
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.optimizers.adafactor import Adafactor
from lozo_bench.optimizers.adamw import AdamW
from lozo_bench.randomness.draws import Draws


def steps(this, optimizer, engine, count):
    """Make steps that fit the logits of some rows."""
    inputs = rows()

    def losses(copies):
        return at_real_tokens(logits(this, **inputs), inputs).logsumexp(-1).mean().view(1, 1)

    for _ in range(count):
        optimizer.step(Score(engine, [MicroBatch(1, 1, losses)]))
        engine.flush()


def kept(this, optimizer, module):
    """Return copies of a module's weights, and of everything that torch's optimizer keeps of it."""
    state = optimizer.moments.state
    tensors = {}
    for name in module.names:
        x = this.X[name]
        tensors[name] = x.detach().clone()
        tensors |= {f"{name}/{key}": torch.as_tensor(m).clone() for key, m in state[x].items()}
    return tensors


def same(before, after):
    assert before.keys() == after.keys()
    return all(torch.equal(x, after[name]) for name, x in before.items())


@pytest.mark.parametrize("kind", [AdamW, Adafactor])
def test_off_keeps_weights_moments_and_their_step_and_on_goes_on_with_them(kind):
    this = gated("opt")
    engine = InPlace(this.X, this.model, this.extras)
    optimizer = kind(engine, Draws(0), lr=1e-2, autocast=None, dropout=False, weight_decay=0.01)
    steps(this, optimizer, engine, 2)
    first, other = this.gates.modules[0], this.gates.modules[1]
    this.gates.set(only(this.gates, 1, 2))
    before, moved = kept(this, optimizer, first), kept(this, optimizer, other)
    steps(this, optimizer, engine, 5)
    assert first.A.grad is None
    assert first.B.grad is None
    assert same(before, kept(this, optimizer, first))
    assert not same(moved, kept(this, optimizer, other))
    this.gates.set(only(this.gates, 0, 1))
    steps(this, optimizer, engine, 1)
    again = kept(this, optimizer, first)
    assert not same(before, again)
    step = f"{first.names[0]}/step"
    assert float(again[step]) == float(before[step]) + 1 == 3


@pytest.mark.parametrize("kind", [AdamW, Adafactor])
def test_components_that_are_off_stay_and_so_do_their_moments(kind):
    this = gated("opt")
    engine = InPlace(this.X, this.model, this.extras)
    optimizer = kind(engine, Draws(0), lr=1e-2, autocast=None, dropout=False, weight_decay=0.01)
    steps(this, optimizer, engine, 2)
    first = this.gates.modules[0]
    this.gates.set(torch.tensor([2, 3, 3, 3]))
    before = kept(this, optimizer, first)
    steps(this, optimizer, engine, 3)
    A, B = first.names
    after = kept(this, optimizer, first)
    alike = [name for name, x in before.items() if x.shape in (first.A.shape, first.B.shape)]
    assert {A, B} <= set(alike)
    for name in alike:
        on, off = (slice(2), slice(2, None))
        if name.startswith(B):
            on, off = (slice(None), on), (slice(None), off)
        assert torch.equal(before[name][off], after[name][off]), name
        assert not torch.equal(before[name][on], after[name][on]), name


@pytest.mark.parametrize("name", ["mezo", "lozo", "forward_grad"])
def test_zeroth_order_steps_touch_no_bit_of_what_is_off(name):
    this = gated("opt")
    engine = InPlace(this.X, this.model, this.extras)
    register_resolver()
    node = OmegaConf.create({"optimizer": OmegaConf.load(CONF / "optimizer" / f"{name}.yaml")})
    node.rank, node.steps = {"value": 1}, 9
    options = OmegaConf.to_container(node, resolve=True)["optimizer"] | {"lr": 1e-2}
    optimizer = build(options, "optimizer", engine, Draws(0))
    this.gates.set(only(this.gates, 1, 2))
    before = {key: x.detach().clone() for key, x in this.X.items()}
    steps(this, optimizer, engine, 2)
    on = {key for i in (1, 2) for key in this.gates.modules[i].names}
    assert {key for key, x in this.X.items() if not torch.equal(x, before[key])} == on


def test_gates_that_change_while_the_weights_are_at_a_candidate_do_not_leave_them_there():
    this = gated("opt")
    engine = InPlace(this.X, this.model, this.extras)
    before = {key: x.detach().clone() for key, x in this.X.items()}
    z = Gaussian(Draws(0), 0)
    engine.full_rank_losses(z, [0.5], [])
    this.gates.set(only(this.gates, 3))
    engine.full_rank_losses(z, [0.5], [])
    engine.decay(0.5)
    on = this.gates.modules[3].names
    for key, x in this.X.items():
        torch.testing.assert_close(x.detach(), before[key] * (0.5 if key in on else 1.0))
