"""The gradient that several processes compute together with torch's DDP."""

from __future__ import annotations

import os

import cells
import pytest
import torch

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.parallel.team import join

INPUTS = torch.arange(1.0, 11.0, dtype=torch.float64).view(5, 2)


def score(sharing, model, call, factor=1.0):
    """Score a square loss on five examples, one per micro-batch: 3 in one process, 2 in another."""

    def micro_batch(x):
        return MicroBatch(1, 1, lambda copies: factor * (call(x[None]) ** 2).view(1, 1))

    mine = INPUTS[list(sharing.examples(5))]
    engine = InPlace(dict(model.named_parameters()))
    return Score(engine, [micro_batch(x) for x in mine], sharing=sharing, examples=5)


def work(environment, path):
    """Run one step whose loss is not finite, and three good ones."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    sharing = join("batch", 60).sharing
    model = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(model.weight, 0.5)
    call = sharing.differentiable(model)
    with pytest.raises(NonFiniteLossError):
        score(sharing, model, call, factor=float("nan")).differentiate()
    losses = [score(sharing, model, call).differentiate() for _ in range(3)]
    torch.save((losses, model.weight.grad), path)


def test_processes_with_unequal_micro_batches_get_the_batch_gradient(tmp_path):
    port = cells.free_port()
    paths = [tmp_path / str(rank) for rank in range(2)]
    started = [
        cells.context.Process(target=work, args=(cells.place(rank, 2, port), path))
        for rank, path in enumerate(paths)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0, 0]
    predicted = INPUTS @ torch.full((2, 1), 0.5, dtype=torch.float64)
    for losses, gradient in map(torch.load, paths):
        assert losses == pytest.approx([float((predicted**2).mean())] * 3, rel=1e-14)
        torch.testing.assert_close(gradient, 2 * (predicted.T @ INPUTS) / 5, rtol=1e-14, atol=0)
