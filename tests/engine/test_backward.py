"""The gradient of a batch, whole or in micro-batches."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.sharing import Alone
from lozo_bench.errors import Stopped


def fitted(w, sizes, seen=None):
    """Parts of such sizes of a regression on ten examples, whose gradient is known."""
    inputs = torch.arange(20, dtype=torch.float64).view(10, 2) / 10

    def losses(rows):
        if seen is not None:
            seen.append((len(rows), None if w.grad is None else w.grad.clone()))
        return (rows @ w - 1)[None] ** 2

    chunks = inputs.split(sizes)
    wanted = 2 * inputs.T @ (inputs @ w.detach() - 1) / 10
    parts = [MicroBatch(len(rows), 1, lambda copies, rows=rows: losses(rows)) for rows in chunks]
    return parts, wanted, float(((inputs @ w.detach() - 1) ** 2).mean())


@pytest.mark.parametrize("sizes", [[10], [5, 5], [4, 4, 2], [1, 6, 3], [1] * 10])
def test_parts_of_any_sizes_have_the_loss_and_gradient_of_the_whole_batch(sizes):
    w = torch.tensor([0.5, -2.0], dtype=torch.float64, requires_grad=True)
    parts, gradient, loss = fitted(w, sizes)
    score = Score(InPlace({"w": w}), parts)
    for scale in (1.0, 3.0):  # again and again: what the last step left is not added to
        assert score.differentiate(scale) == pytest.approx(loss, rel=1e-14)
        torch.testing.assert_close(w.grad, scale * gradient, rtol=1e-14, atol=1e-14)


def test_one_part_goes_back_before_the_next_goes_forward():
    w = torch.tensor([0.5, -2.0], dtype=torch.float64, requires_grad=True)
    seen = []
    Score(InPlace({"w": w}), fitted(w, [4, 4, 2], seen)[0]).differentiate()
    assert [size for size, _ in seen] == [4, 4, 2]
    assert [gradient is not None for _, gradient in seen] == [False, True, True]


def telling(told):
    """A weight, and losses that write down when they go forward and back."""
    w = torch.ones(1, requires_grad=True)

    def losses(copies):
        told.append("forward")
        loss = w.view(1, 1).clone()
        loss.register_hook(lambda gradient: told.append("backward"))
        return loss

    return w, losses


def test_each_part_goes_forward_and_back_in_noise_of_its_own():
    told = []

    @contextmanager
    def dropout(part):
        told.append(f"noise {part}")
        yield
        told.append("quiet")

    class Second(Alone):
        def examples(self, B):
            return range(4, 7)

    w, losses = telling(told)
    parts = [MicroBatch(1, 1, losses)] * 2
    engine = InPlace({"w": w})
    Score(engine, parts, sharing=Second(), examples=7, dropout=dropout).differentiate()
    both = ["forward", "backward", "quiet"]
    assert told == ["noise 4", *both, "noise 5", *both]


def test_processes_put_gradients_together_with_the_last_part_alone():
    told = []

    class Spy(Alone):
        @contextmanager
        def no_sync(self):
            told.append("apart")
            yield
            told.append("together")

    w, losses = telling(told)
    Score(InPlace({"w": w}), [MicroBatch(1, 1, losses)] * 3, sharing=Spy()).differentiate()
    both = ["forward", "backward"]
    assert told == ["apart", *both, *both, "together", *both]


def test_a_part_that_is_not_finite_makes_a_bad_loss_wherever_it_stands():
    w = torch.ones(2, requires_grad=True)
    for bad in range(3):
        factors = [float("nan") if i == bad else 1.0 for i in range(3)]
        parts = [MicroBatch(1, 1, lambda copies, c=c: (c * w.sum()).view(1, 1)) for c in factors]
        with pytest.raises(NonFiniteLossError, match="nan"):
            Score(InPlace({"w": w}), parts).differentiate()


def test_a_request_to_stop_between_two_parts_is_heeded():
    w = torch.ones(2, requires_grad=True)
    looks = []

    def check():
        looks.append(len(looks))
        if len(looks) == 2:
            raise Stopped("SIGTERM")

    parts = [MicroBatch(1, 1, lambda copies: w.sum().view(1, 1)) for _ in range(3)]
    with pytest.raises(Stopped):
        Score(InPlace({"w": w}), parts, check=check).differentiate()
    assert looks == [0, 1]
