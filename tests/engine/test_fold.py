"""Folding accumulated updates into weights."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import strategies

from lozo_bench.engine import fold
from lozo_bench.engine.fold import Folder
from lozo_bench.randomness.draws import Draws

HALF = [torch.bfloat16, torch.float16]
ROUNDINGS = ["nearest", "stochastic", "residual"]


def drawn(m=40, n=30, rank=3, dtype=torch.float32):
    return Draws(0).normal("fold", 0, {"W": (m, n), "L": (m, rank), "V": (n, rank)}, dtype=dtype)


def folded(rounding, dtype, scale, times=1):
    """Return W after ``times`` folds of scale L V^T, W before the folds, and scale L V^T."""
    t = drawn()
    W = (0.02 * t["W"]).to(dtype)
    before, folder = W.clone(), Folder(rounding, Draws(1))
    for _ in range(times):
        folder.fold("w", W, scale * t["L"], t["V"])
    return W.double(), before.double(), scale * t["L"].double() @ t["V"].double().T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_folding_into_float32_and_float64_weights_adds_the_product(dtype, rounding):
    t = drawn(dtype=dtype)
    W = t["W"].clone()
    Folder(rounding, Draws(0)).fold("w", W, t["L"], t["V"], keep=0.5)
    torch.testing.assert_close(W, 0.5 * t["W"] + t["L"] @ t["V"].T)


@pytest.mark.parametrize("dtype", HALF)
def test_nearest_rounds_the_float32_result_to_the_nearest(dtype):
    t = drawn()
    W = (0.02 * t["W"]).to(dtype)
    wanted = (0.75 * W.float() + t["L"] @ t["V"].T).to(dtype)
    Folder("nearest", Draws(0)).fold("w", W, t["L"], t["V"], keep=0.75)
    torch.testing.assert_close(W, wanted, rtol=2**-7, atol=0)
    assert (
        wanted != W
    ).float().mean() < 0.01  # products summed in another order may round differently


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_folding_a_zero_update_changes_no_byte(dtype, rounding):
    W, before, _ = folded(rounding, dtype, 0.0, times=3)
    assert torch.equal(W, before)


@pytest.mark.parametrize("dtype", HALF)
def test_stochastic_rounding_is_right_on_average_where_nearest_loses_small_updates(dtype):
    scale, times = 1e-6, 400

    def progress(rounding):
        W, before, step = folded(rounding, dtype, scale, times)
        wanted = times * step
        return float(((W - before) * wanted).sum() / (wanted * wanted).sum())

    assert progress("nearest") < 0.5
    assert progress("stochastic") == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("dtype", HALF)
def test_with_residuals_only_the_last_rounding_error_remains(dtype):
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
def test_stochastic_rounding_returns_one_of_the_two_neighbors(value, chance, dtype):
    u = torch.tensor([value])
    got = fold._round_stochastically(u, torch.tensor([chance]), dtype)
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
def test_infinite_and_nan_weights_stay_infinite_and_nan(rounding):
    W = torch.tensor([[float("inf"), float("nan"), -float("inf"), 1.0]], dtype=torch.bfloat16)
    folder = Folder(rounding, Draws(0))
    for _ in range(2):
        folder.fold("w", W, torch.ones(1, 1), torch.ones(4, 1))
    assert W[0, 0] == float("inf")
    assert W[0, 1].isnan()
    assert W[0, 2] == -float("inf")
    assert W[0, 3] == 3.0


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_result_hardly_depends_on_the_block_size(monkeypatch, rounding):
    ends = []
    for block in (2**18, 70):
        monkeypatch.setattr(fold, "_BLOCK", block)
        ends.append(folded(rounding, torch.bfloat16, 1e-4, times=3)[0])
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=2e-4)
    assert (
        ends[0] != ends[1]
    ).double().mean() < 0.02  # products of other block sizes may round differently


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


@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_step_of_nothing_leaves_every_byte_even_of_minus_zero_and_of_nan(dtype, rounding):
    W = torch.tensor([[-0.0, 0.0, float("nan"), -float("inf"), 0.02]], dtype=dtype)
    before = W.clone().view(torch.uint8)
    Folder(rounding, Draws(0)).fold("w", W, torch.zeros(1, 2), torch.ones(5, 2))
    assert torch.equal(W.view(torch.uint8), before)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", HALF)
def test_a_weight_that_overflows_stays_infinite(dtype, rounding):
    largest = torch.finfo(dtype).max
    W = torch.tensor([[largest, -largest]], dtype=dtype)
    folder = Folder(rounding, Draws(0))
    for _ in range(3):
        folder.fold("w", W, torch.tensor([[largest / 128]]), torch.tensor([[1.0], [-1.0]]))
    assert W.tolist() == [[float("inf"), -float("inf")]]


@pytest.mark.parametrize("dtype", [*HALF, torch.float64])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_tensor_of_three_dimensions_is_folded_as_a_matrix(dtype, rounding):
    t = drawn()
    flat = (0.02 * t["W"]).to(dtype)
    W = flat.clone().view(40, 5, 6)
    for x in (flat, W):
        Folder(rounding, Draws(0)).fold("w", x, 1e-3 * t["L"], t["V"])
    assert torch.equal(W.view(40, 30), flat)
    assert not torch.equal(flat, (0.02 * t["W"]).to(dtype))


def test_a_tensor_that_cannot_be_viewed_as_a_matrix_is_refused():
    W = torch.zeros(4, 2, 3, 2).to(torch.bfloat16, memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="view"):
        Folder("nearest", Draws(0)).fold("w", W, torch.ones(4, 1), torch.ones(12, 1))


def test_factors_in_half_precision_are_multiplied_in_float32():
    t = drawn()
    L, V = (0.02 * t["L"]).bfloat16(), t["V"].bfloat16()
    ends = []
    for a, b in ((L, V), (L.float(), V.float())):
        W = (0.02 * t["W"]).bfloat16()
        Folder("nearest", Draws(0)).fold("w", W, a, b)
        ends.append(W)
    assert torch.equal(*ends)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_random_bits_do_not_depend_on_the_block_size(monkeypatch, rounding):
    """All products and sums in this test are exact, so only the random bits could differ."""
    index = torch.arange(40 * 30).view(40, 30)
    L, V = torch.tensor([[2.0**-12], [-3 * 2.0**-13]]).repeat(20, 1), torch.ones(30, 1)
    ends = []
    for block in (2**18, 70, 1):
        monkeypatch.setattr(fold, "_BLOCK", block)
        W, folder = (1 + (index % 128) / 128).bfloat16(), Folder(rounding, Draws(0))
        for _ in range(4):
            folder.fold("w", W, L, V)
        ends.append(W)
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("exponent", [-2, -20, -30])
def test_stochastic_rounding_rounds_up_with_the_right_probability(dtype, exponent):
    """This covers the subnormal numbers of float16, which are 2**-24 apart, too."""
    low = torch.tensor(2.0**exponent).to(dtype)
    high = (low.view(torch.int16) + 1).view(dtype)
    gap, n, ups = float(high) - float(low), 2**16, []
    for share in (1 / 16, 5 / 8):
        W = low.repeat(256, 256)
        L, V = torch.full((256, 1), share * gap), torch.ones(256, 1)
        Folder("stochastic", Draws(2)).fold("w", W, L, V)
        assert bool(((low == W) | (high == W)).all())
        ups.append(float((high == W).double().mean()))
    deviation = [(share * (1 - share) / n) ** 0.5 for share in (1 / 16, 5 / 8)]
    assert ups[0] == pytest.approx(1 / 16, abs=4 * deviation[0])
    assert ups[1] == pytest.approx(5 / 8, abs=4 * deviation[1])


def test_each_weight_and_each_fold_has_its_own_random_bits():
    draws, L, V = Draws(0), torch.full((64, 1), 2.0**-9), torch.ones(64, 1)
    ends = {}
    for name in ("v", "w"):
        W, folder = torch.ones(64, 64, dtype=torch.bfloat16), Folder("stochastic", draws)
        folder.fold(name, W, L, V)  # the update is half the distance from 1 to the next number
        ends[name] = W.clone()
        folder.fold(name, W.fill_(1), L, V)
        ends[name + " again"] = W.clone()
    patterns = torch.stack([W.flatten() > 1 for W in ends.values()]).double()
    assert float((torch.corrcoef(patterns) - torch.eye(4)).abs().max()) < 0.06
