"""What holds for every optimizer there is: a YAML file in conf/optimizer is tested by existing."""

from __future__ import annotations

import pytest
import torch
from methods import CONF, EVERY, STEPPING, ZEROTH_ORDER
from omegaconf import OmegaConf
from toys import quadratic, run, score, two_layers

from lozo_bench.build import build
from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import NonFiniteLossError, Score
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.errors import UserError
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state

# lr=1e-2 is too large beside the published eps: see mezo_one_point.py.
LARGER = {"mezo_one_point": {"eps": 0.1}}


def make(name, X, seed=0, **changes):
    node = OmegaConf.create({"optimizer": OmegaConf.load(CONF / f"{name}.yaml")})
    node.rank, node.model, node.steps = {"value": 2}, {"autocast": None}, 200
    options = OmegaConf.to_container(node, resolve=True)["optimizer"] | changes
    if "targets" in options:
        # These weights have other names than a language model's, and are smaller.
        options |= {"targets": "", "alpha": 4.0}
    return build(options, "optimizer", X, Draws(seed))


def trainable():
    X, loss = two_layers()
    for x in X.X.values():
        x.requires_grad_()
    return X, loss


@pytest.mark.parametrize("name", STEPPING)
def test_the_loss_goes_down(name):
    X, loss = quadratic(16)
    X.X["w"].requires_grad_()
    start = float(loss().detach())
    reports = run(make(name, X, lr=1e-2, **LARGER.get(name, {})), X, loss, steps=200)
    assert float(loss().detach()) < 0.9 * start
    assert all(report.forwards >= 1 for report in reports)


@pytest.mark.parametrize("name", STEPPING)
def test_the_same_seed_gives_the_same_bits_and_global_generators_are_left_alone(name):
    before = torch.random.get_rng_state()
    ends = []
    for _ in range(2):
        X, loss = trainable()
        run(make(name, X, lr=1e-3), X, loss, steps=5)
        ends.append({n: x.detach() for n, x in X.X.items()})
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", STEPPING)
def test_a_loss_that_is_not_finite_changes_nothing(name):
    X, loss = trainable()
    optimizer = make(name, X, lr=1e-3)
    before = {n: x.detach().clone() for n, x in X.X.items()}
    with pytest.raises(NonFiniteLossError):
        optimizer.step(score(X, lambda: loss() * float("nan")))
    after = {n: x.detach() for n, x in X.X.items()}
    torch.testing.assert_close(after, before, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", STEPPING)
def test_options_are_checked_without_any_weights(name):
    make(name, InPlace({}))
    with pytest.raises(UserError, match=r"^optimizer\.lr: given -1; allowed: a number >= 0$"):
        make(name, InPlace({}), lr=-1)
    with pytest.raises(UserError, match=r"^optimizer\.lrr: no such key \(did you mean 'lr'\?\)"):
        make(name, InPlace({}), lrr=1)


@pytest.mark.parametrize("name", EVERY)
def test_every_yaml_begins_with_the_command_that_uses_it(name):
    first = (CONF / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# lozo-train optimizer={name}")


@pytest.mark.parametrize("name", STEPPING)
def test_it_goes_on_from_its_state_as_if_it_had_never_stopped(name):
    """Nothing in the optimizer's own file is needed for that: see optimizers/state.py."""
    X, loss = trainable()
    straight = make(name, X, lr=1e-3)
    run(straight, X, loss, steps=5)
    weights, gathered = X.state(), optimizer_state(straight)
    run(straight, X, loss, steps=4)

    again, loss_again = trainable()
    resumed = make(name, again, lr=1e-3)
    again.load_state(weights)
    load_optimizer_state(resumed, gathered)
    run(resumed, again, loss_again, steps=4)
    assert fingerprint(again.state()) == fingerprint(X.state())
    assert fingerprint(again.state()) != fingerprint(weights)


@pytest.mark.parametrize("name", ZEROTH_ORDER)
def test_told_the_same_again_it_makes_the_same_step_without_a_loss(name):
    X, loss = trainable()
    optimizer = make(name, X, lr=1e-3)
    told = []
    for _ in range(6):
        asked = score(X, loss)
        optimizer.step(asked)
        told.append(asked.told)

    again, _ = trainable()
    replayed = make(name, again, lr=1e-3)
    for answers in told:
        replayed.step(Score(again, [], examples=1, recorded=answers))
    assert fingerprint(again.state()) == fingerprint(X.state())


def test_a_state_is_a_copy():
    X, loss = trainable()
    optimizer = make("lozo_m", X, lr=1e-3)
    run(optimizer, X, loss, steps=1)
    state = optimizer_state(optimizer)
    before = state["N/tall"].clone()
    run(optimizer, X, loss, steps=1)
    assert torch.equal(state["N/tall"], before)
    assert (int(state["t"]), optimizer.t) == (1, 2)
