"""Rounding gathered steps into weights."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import strategies

from lozo_bench.engine import fold
from lozo_bench.engine.draws import Draws
from lozo_bench.engine.fold import Folder

HALF = [torch.bfloat16, torch.float16]
ROUNDINGS = ["nearest", "stochastic", "residual"]


def drawn(m=40, n=30, rank=3, dtype=torch.float32):
    return Draws(0).normal("fold", 0, {"W": (m, n), "L": (m, rank), "V": (n, rank)}, dtype=dtype)


def folded(rounding, dtype, scale, times=1):
    """W after folding scale L V^T so many times, W before, and scale L V^T."""
    t = drawn()
    W = (0.02 * t["W"]).to(dtype)
    before, folder = W.clone(), Folder(rounding, Draws(1))
    for _ in range(times):
        folder.fold("w", W, scale * t["L"], t["V"])
    return W.double(), before.double(), scale * t["L"].double() @ t["V"].double().T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_wide_weights_are_simply_added_to(dtype, rounding):
    t = drawn(dtype=dtype)
    W = t["W"].clone()
    Folder(rounding, Draws(0)).fold("w", W, t["L"], t["V"], keep=0.5)
    torch.testing.assert_close(W, 0.5 * t["W"] + t["L"] @ t["V"].T)


@pytest.mark.parametrize("dtype", HALF)
def test_nearest_is_the_nearest(dtype):
    t = drawn()
    W = (0.02 * t["W"]).to(dtype)
    wanted = (0.75 * W.float() + t["L"] @ t["V"].T).to(dtype)
    Folder("nearest", Draws(0)).fold("w", W, t["L"], t["V"], keep=0.75)
    torch.testing.assert_close(W, wanted, rtol=2**-7, atol=0)
    assert (wanted != W).float().mean() < 0.01  # a product in another order may round elsewhere


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_folding_nothing_changes_not_one_byte(dtype, rounding):
    W, before, _ = folded(rounding, dtype, 0.0, times=3)
    assert torch.equal(W, before)


@pytest.mark.parametrize("dtype", HALF)
def test_stochastic_rounding_is_right_on_average_where_the_nearest_loses_everything(dtype):
    scale, times = 1e-6, 400

    def progress(rounding):
        W, before, step = folded(rounding, dtype, scale, times)
        wanted = times * step
        return float(((W - before) * wanted).sum() / (wanted * wanted).sum())

    assert progress("nearest") < 0.5
    assert progress("stochastic") == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("dtype", HALF)
def test_a_residual_leaves_only_the_last_rounding(dtype):
    times = 200
    W, before, step = folded("residual", dtype, 1e-6, times)
    error = (W - before - times * step).abs()
    spacing = torch.finfo(dtype).eps * W.abs().clamp(min=2**-14)
    assert (error <= 0.6 * spacing).all()


@hypothesis.given(
    value=strategies.floats(-7e4, 7e4, width=32),
    chance=strategies.floats(0, 1, exclude_max=True, width=32),
    dtype=strategies.sampled_from(HALF),
)
@hypothesis.settings(deadline=None, max_examples=400)
def test_rounded_up_or_down_a_number_is_one_of_its_two_neighbours(value, chance, dtype):
    u = torch.tensor([value])
    got = fold._up_or_down(u, torch.tensor([chance]), dtype)
    nearest = u.to(dtype)
    if not nearest.isfinite().all():
        assert torch.equal(got, nearest)
        return
    if nearest.float() == u:
        assert torch.equal(got.view(torch.int16), nearest.view(torch.int16))
        return
    away = 1 if nearest.float().abs() < u.abs() else -1
    other = (nearest.view(torch.int16) + away).view(dtype)
    assert bool(got == nearest) or bool(got == other)
    low, high = sorted((float(nearest), float(other)))
    share = (abs(value) - min(abs(low), abs(high))) / (high - low)
    if abs(share - chance) > 1e-5:
        assert bool(got.abs() == max(abs(low), abs(high))) == (chance < share)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_infinities_and_nan_stay_what_they_are(rounding):
    W = torch.tensor([[float("inf"), float("nan"), -float("inf"), 1.0]], dtype=torch.bfloat16)
    folder = Folder(rounding, Draws(0))
    for _ in range(2):
        folder.fold("w", W, torch.ones(1, 1), torch.ones(4, 1))
    assert W[0, 0] == float("inf")
    assert W[0, 1].isnan()
    assert W[0, 2] == -float("inf")
    assert W[0, 3] == 3.0


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_bits_do_not_depend_on_the_blocks(monkeypatch, rounding):
    ends = []
    for block in (2**18, 70):
        monkeypatch.setattr(fold, "_BLOCK", block)
        ends.append(folded(rounding, torch.bfloat16, 1e-4, times=3)[0])
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=2e-4)
    assert (ends[0] != ends[1]).double().mean() < 0.02  # where a product rounds otherwise


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_state_goes_on_as_if_nothing_had_happened(rounding):
    t, ends = drawn(), []
    for interrupted in (False, True):
        W, folder = (0.02 * t["W"]).bfloat16(), Folder(rounding, Draws(1))
        for i in range(6):
            if interrupted and i == 3:
                state, folder = folder.state(), Folder(rounding, Draws(1))
                folder.load_state(state)
            folder.fold("w", W, 1e-5 * t["L"], t["V"])
        ends.append(W)
    assert torch.equal(ends[0], ends[1])
