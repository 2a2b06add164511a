"""Factors in buffers give the losses and trajectories of factors kept by weight."""

from __future__ import annotations

import pytest
import torch
from models import MAKERS, model, part

from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.packed import MOST_VERSIONS, Packed
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import Subspace, along, stacked
from lozo_bench.optimizers.eggroll import Eggroll
from lozo_bench.optimizers.low_rank import LowRankDirections
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.optimizers.lozo_m import LozoM
from lozo_bench.optimizers.lozo_q import LozoQ
from lozo_bench.randomness.draws import Draws

OPTIONS = {"lr": 1e-3, "eps": 1e-3, "rank": 2, "nu": 3}
METHODS = {
    "lozo with decay": (Lozo, {**OPTIONS, "weight_decay": 0.1}),
    "lozo_m": (LozoM, {**OPTIONS, "projection": "exact"}),
    "lozo_q": (LozoQ, {**OPTIONS, "q": 2}),
    "eggroll": (Eggroll, {"lr": 1e-3, "sigma": 1e-3, "rank": 2, "population": 4}),
}


def engine(net, packed, **options):
    made = Fused(net, dict(net.named_parameters()), Folder("nearest", Draws(0)), **options)
    made._packed = Packed(net, made.pending) if packed else None
    return made


def ends(kind, method, packed, dtype=torch.float64, steps=8, **options):
    """Return the losses of some steps and of an evaluation, and the weights' change."""
    net = model(kind, dtype=dtype)
    before = {name: x.detach().clone() for name, x in net.named_parameters()}
    made = engine(net, packed, **options)
    optimizer_class, given = METHODS[method]
    optimizer = optimizer_class(made, Draws(1), **given)
    batch = [part(net), part(net, rows=((20, 21), (22, 23)))]
    losses = [optimizer.step(Score(made, batch)).loss for _ in range(steps)]
    with torch.no_grad(), made.applied():
        losses.append(float(batch[0].losses(1).sum()))
    if packed:
        assert made._packed._buffers is not None
    made.flush()
    moved = [(x.detach() - before[name]).flatten() for name, x in net.named_parameters()]
    return torch.tensor(losses), torch.cat(moved)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("method", METHODS)
def test_methods_end_at_the_same_weights(kind, method):
    """The changes of all weights differ by less than 1e-10 of their length."""
    options = {"per_forward": 2, "max_rank": 5}
    losses, moved = ends(kind, method, packed=True, **options)
    wanted_losses, wanted = ends(kind, method, packed=False, **options)
    torch.testing.assert_close(losses, wanted_losses, rtol=1e-12, atol=0)
    assert (moved - wanted).norm() < 1e-10 * wanted.norm()


@pytest.mark.parametrize("max_rank", [0, 1000])
@pytest.mark.parametrize("per_forward", [1, 4])
def test_any_number_of_closed_periods_and_of_candidates_gives_the_same(max_rank, per_forward):
    options = {"per_forward": per_forward, "max_rank": max_rank}
    _, moved = ends("roberta", "lozo_q", packed=True, **options)
    _, wanted = ends("roberta", "lozo_q", packed=False, **options)
    assert (moved - wanted).norm() < 1e-10 * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama"])
def test_half_precision_loses_no_more_than_without_the_buffers(kind, dtype):
    """The difference of two losses, which is a step's result, agrees within 1 %."""
    found = {}
    for packed in (True, False):
        net = model(kind, dtype=dtype)
        made = engine(net, packed, per_forward=2)
        P = LowRankDirections(made.X, Draws(1), 2, 3).draw(0)
        plus, minus = made.losses(P, stacked([along(P, 0.05), along(P, -0.05)]), [part(net)])
        found[packed] = float((plus - minus).mean())
    assert found[True] == pytest.approx(found[False], rel=0.01)


def test_float16_keeps_steps_that_are_too_small_for_its_normal_numbers():
    """Steps of 1e-6 change the losses as much as in float32."""
    changes = {}
    for dtype in (torch.float16, torch.float32):
        net = model("opt", dtype=torch.float16).to(dtype)
        made = engine(net, packed=True)
        P = LowRankDirections(made.X, Draws(1), 2, 3).draw(0)
        made.move(P, along(P, 1e-6, 0.0))
        made._packed.versions(P, stacked([along(P, 0.0)]))
        buffers, name = made._packed._buffers, "model.decoder.layers.0.fc1.weight"
        left = buffers.left[0, :, made._packed.m.part(name)]
        right = buffers.right[:, made._packed.n.part(name)]
        changes[dtype] = left.T.float() @ right.float()
    torch.testing.assert_close(changes[torch.float16], changes[torch.float32], rtol=2e-3, atol=2e-9)


def test_candidates_that_the_buffers_cannot_hold_are_scored_without_them():
    net = model("opt")
    made = engine(net, packed=True)
    P = LowRankDirections(made.X, Draws(1), 2, 3).draw(0)
    some = dict(list(P.U.items())[:2])
    assert made._packed.versions(Subspace(some, P.V, {}), stacked([along(P, 1.0)])) is None
    many = stacked([along(P, 1.0)] * (MOST_VERSIONS + 1))
    assert made._packed.versions(P, many) is None
    made.set_adapter(P, along(P, 0.1))
    assert made._packed.versions(P, stacked([along(P, 1.0)])) is None


@pytest.mark.parametrize("max_rank", [0, 50])
def test_a_loaded_state_goes_on_to_the_last_bit(max_rank):
    """A file holds the state in the order of the names, which is not that of the weights."""
    net = model("opt", dtype=torch.float32)
    made, batch = engine(net, packed=True, max_rank=max_rank), [part(net)]
    optimizer = Lozo(made, Draws(1), **OPTIONS)
    for _ in range(4):
        optimizer.step(Score(made, batch))
    state = made.state()
    wanted = [optimizer.step(Score(made, batch)).loss for _ in range(4)]
    again = Lozo(made, Draws(1), **OPTIONS)
    again.t = 4
    made.load_state({name: state[name] for name in sorted(state)})
    got = [again.step(Score(made, batch)).loss for _ in range(4)]
    assert got == wanted


def test_buffers_grow_for_periods_with_more_columns_than_the_candidates_have():
    """A period of six columns is open when candidates of one column come."""
    net = model("opt")
    losses = {}
    for packed in (True, False):
        made = engine(net, packed, max_rank=0)
        wide = LowRankDirections(made.X, Draws(1), 6, 3).draw(0)
        made.move(wide, along(wide, 1e-3))
        P = LowRankDirections(made.X, Draws(2), 1, 3).draw(0)
        losses[packed] = made.losses(P, stacked([along(P, 1e-2), along(P, -1e-2)]), [part(net)])
    torch.testing.assert_close(losses[True], losses[False], rtol=1e-12, atol=0)


def test_vectors_in_float32_beside_matrices_in_half_precision():
    net = model("opt", dtype=torch.bfloat16)
    for name, x in net.named_parameters():
        if "norm" in name:
            x.data = x.data.float()
    X = dict(sorted(net.named_parameters(), key=lambda item: item[1].ndim))  # a vector first
    made = Fused(net, X, Folder("nearest", Draws(0)))
    assert made._packed.dtype == torch.bfloat16


def test_a_closed_period_counts_while_candidates_use_its_v_again():
    net = model("opt")
    drawn = LowRankDirections(dict(net.named_parameters()), Draws(1), 2, nu=1)
    first, second = drawn.draw(0), drawn.draw(1)
    losses = {}
    for packed in (True, False):
        made = engine(net, packed, max_rank=50)
        for P in (first, second):
            made.move(P, along(P, 1e-2))
        losses[packed] = made.losses(first, stacked([along(first, 1e-2)]), [part(net)])
    torch.testing.assert_close(losses[True], losses[False], rtol=1e-12, atol=0)


def test_buffers_made_in_inference_mode_serve_outside_of_it():
    net = model("opt")
    made = engine(net, packed=True, max_rank=50)
    drawn = LowRankDirections(made.X, Draws(1), 2, nu=1)
    for t in range(2):
        P = drawn.draw(t)
        made.move(P, along(P, 0.01))
    with torch.inference_mode(), made.applied():
        inside = part(net).losses(1)
    outside = made.losses(P, stacked([along(P, 0.0)]), [part(net)])
    torch.testing.assert_close(outside, inside, rtol=1e-12, atol=0)


def test_an_evaluation_uses_the_buffers_whatever_the_order_of_the_directions():
    """A loaded state has the order of the weights, so a period has it from the beginning."""
    net = model("opt")
    made = engine(net, packed=True)
    P = LowRankDirections(made.X, Draws(1), 2, nu=1).draw(0)
    made.move(Subspace(dict(reversed(P.U.items())), P.V, P.z), along(P, 0.01))
    with made.applied():
        pass
    assert made._packed._buffers is not None
