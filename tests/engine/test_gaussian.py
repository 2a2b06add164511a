"""Adding full-rank directions: exact arithmetic, independent of how the weights are grouped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lozo_bench.engine import gaussian
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws

SHAPES = {"emb": (7, 5), "w": (6, 11), "b": (3,), "norm": (1,)}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def weights(dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)
        for name, shape in SHAPES.items()
    }


def z(step=3):
    return Draws(1).normal("z", step, SHAPES, dtype=torch.float64)


def test_float64_weights_move_by_z():
    X, X0 = weights(), weights()
    Gaussian(Draws(1), 3).move(X, 0.37)
    for name, step in z().items():
        assert torch.equal(X[name], X0[name] + step * 0.37)


@pytest.mark.parametrize(
    ("dtype", "numpy_dtype"), [(torch.float32, np.float32), (torch.float16, np.float16)]
)
def test_narrower_weights_are_updated_in_float32_and_rounded_once(dtype, numpy_dtype):
    X, X0 = weights(dtype), weights(dtype)
    Gaussian(Draws(1), 3).move(X, 0.1)
    for name, step in z().items():
        t = np.float32(0.1) * step.numpy().astype(np.float32)
        expected = (X0[name].numpy().astype(np.float32) + t).astype(numpy_dtype)
        np.testing.assert_array_equal(X[name].numpy(), expected)


def test_bfloat16_weights_are_rounded_to_nearest():
    X, X0 = weights(torch.bfloat16), weights(torch.bfloat16)
    Gaussian(Draws(1), 3).move(X, 0.1)
    for name, step in z().items():
        u = X0[name].float().numpy() + np.float32(0.1) * step.numpy().astype(np.float32)
        bits = u.view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # nearest, ties to even
        np.testing.assert_array_equal(X[name].view(torch.int16).numpy().view(np.uint16), bits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", [1, 4, 5, 38, 67])
def test_the_group_size_does_not_change_the_result(dtype, limit, monkeypatch):
    whole, parts = weights(dtype), weights(dtype)
    Gaussian(Draws(1), 3).move(whole, 0.01)
    monkeypatch.setattr(gaussian, "GROUP_ELEMENTS", limit)
    direction = Gaussian(Draws(1), 3)
    for by in (0.5, -0.5, 0.01):
        direction.move(parts, by) if by == 0.01 else direction.move(weights(dtype), by)
    assert all(torch.equal(whole[name], parts[name]) for name in SHAPES)


def test_no_draw_is_larger_than_a_group(monkeypatch):
    sizes = []
    monkeypatch.setattr(gaussian, "GROUP_ELEMENTS", 32)
    monkeypatch.setattr(gaussian, "add", lambda x, z, by: None)
    direction = Gaussian(Draws(1), 3)
    fresh = direction._fresh
    monkeypatch.setattr(
        direction,
        "_fresh",
        lambda group: sizes.append(sum(b - a for _, a, b in group[2])) or fresh(group),
    )
    direction.move(weights(), 1.0)
    assert sizes == [32, 3, 32, 32, 2, 4]


def test_a_gpu_draws_larger_groups():
    assert gaussian.group_elements(torch.device("cpu")) == 1_000_000
    assert gaussian.group_elements(torch.device("cuda:1")) == 2**26


def test_weights_of_several_dtypes_move_in_one_call_as_they_do_alone():
    X = {name: x.to(dtype) for (name, x), dtype in zip(weights().items(), DTYPES, strict=True)}
    alone = {name: x.clone() for name, x in X.items()}
    Gaussian(Draws(1), 3).move(X, 0.01)
    for name, x in alone.items():
        Gaussian(Draws(1), 3).move({name: x}, 0.01)
        assert torch.equal(X[name], x)


def test_moving_there_and_back_restores_the_weights():
    X, X0 = weights(), weights()
    direction = Gaussian(Draws(1), 3)
    for by in (+1e-3, -2e-3, +1e-3):
        direction.move(X, by)
    for name in SHAPES:
        torch.testing.assert_close(X[name], X0[name], rtol=0, atol=1e-12)


def test_a_model_that_fits_into_one_group_draws_z_once_per_step(monkeypatch):
    draws, count = Draws(1), []
    normal = draws.normal
    monkeypatch.setattr(draws, "normal", lambda *args: count.append(1) or normal(*args))
    X = weights()
    for step in (0, 1):
        direction = Gaussian(draws, step)
        for by in (+1e-3, -2e-3, +1e-3):
            direction.move(X, by)
    assert len(count) == 2


def test_another_step_or_role_gives_another_direction():
    moved = []
    for step, role in ((3, "z"), (4, "z"), (3, "q")):
        X = {"w": torch.zeros(50, dtype=torch.float64)}
        Gaussian(Draws(1), step, role).move(X, 1.0)
        moved.append(X["w"])
    assert not torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])


def test_moving_parameters_that_require_gradients_builds_no_graph():
    x = torch.nn.Parameter(torch.zeros(4))
    Gaussian(Draws(1), 0).move({"x": x}, 1.0)
    assert x.grad_fn is None
    assert x.abs().sum() > 0


def test_moving_does_not_change_the_global_generator():
    before = torch.random.get_rng_state()
    Gaussian(Draws(1), 3).move(weights(), 0.1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_non_contiguous_weight_is_refused_by_name_before_any_weight_changes():
    X, X0 = weights(), weights()
    X["side"] = torch.zeros(4, 3, dtype=torch.float64).T
    with pytest.raises(UserError, match=r"parameter side: .* not contiguous"):
        Gaussian(Draws(1), 3).move(X, 0.1)
    assert all(torch.equal(X[name], X0[name]) for name in SHAPES)


def test_an_integer_weight_is_refused_by_name():
    with pytest.raises(UserError, match=r"parameter n: its dtype is torch.int64; allowed: torch.f"):
        Gaussian(Draws(1), 3).move({"n": torch.zeros(3, dtype=torch.int64)}, 0.1)


@pytest.mark.parametrize(("start", "stop"), [(0, 70_001), (3, 9), (65_530, 65_545), (8, 8)])
def test_a_piece_drawn_alone_equals_that_piece_of_the_whole_tensor(start, stop):
    whole = Draws(1).normal("z", 2, {"a": (3,), "w": (70_001,), "b": (2, 2)})["w"]
    assert torch.equal(Draws(1).normal_range("z", 2, "w", start, stop), whole[start:stop])


def test_elements_beyond_the_first_2_to_the_32_blocks_are_not_repeated():
    far, near = (Draws(1).normal_range("z", 2, "w", at, at + 8) for at in (2**34, 0))
    assert not torch.equal(far, near)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_a_gpu_gives_the_same_bits_as_the_cpu(dtype):
    here, there = weights(dtype), weights(dtype, "cuda")
    for X in (here, there):
        Gaussian(Draws(1), 2**33 + 3).move(X, 1e-2)
    assert all(torch.equal(here[name], there[name].cpu()) for name in SHAPES)
