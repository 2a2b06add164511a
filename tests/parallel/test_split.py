"""Splitting the work among processes: every item once, put together in the batch's order."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lozo_bench.engine.finite import STOPPED, is_stopped
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import Subspace, combination
from lozo_bench.errors import Stopped
from lozo_bench.optimizers.norms import gradient_norms
from lozo_bench.parallel.split import SplitBatch, SplitCandidates

SPLITS = [SplitBatch, SplitCandidates]


class ThreadWires:
    """Wires that connect threads of one process in place of processes."""

    def __init__(self, size):
        self.size, self.given = size, [None] * size
        self.barrier = threading.Barrier(size, timeout=20)

    def of(self, rank):
        wire = ThreadWire()
        wire.rank, wire.size, wire.all = rank, self.size, self
        return wire


class ThreadWire:
    def gather(self, x):
        self.all.given[self.rank] = x.clone()
        self.all.barrier.wait()
        gathered = list(self.all.given)
        self.all.barrier.wait()
        return gathered

    def sum(self, x):
        return torch.stack(self.gather(x)).sum(0)


def run_in_threads(size, split, work):
    """Call work(sharing) in ``size`` threads; return the result or exception of each."""
    threads, results = ThreadWires(size), [None] * size

    def run_one(rank):
        try:
            results[rank] = work(split(threads.of(rank)))
        except Exception as error:
            results[rank] = error

    started = [threading.Thread(target=run_one, args=(rank,)) for rank in range(size)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return results


def losses_of(batch, order, sharing, each):
    """Return the losses of a model where example b has loss batch[b] + k (b + 1) at candidate k."""
    x = torch.zeros(1, dtype=torch.float32)
    engine = InPlace({"w": x})
    P = Subspace({}, {}, {"w": torch.ones(1, len(batch) if each else 1)})
    mine = sharing.examples(len(batch))
    rows = [mine[i] for i in order(len(mine))]

    def losses(copies):
        return torch.tensor([[batch[b] + float(x) * (b + 1) for b in rows]])

    parts = [MicroBatch(len(rows), 1, losses)] if rows else []
    score = Score(engine, parts, order=order(len(mine)), sharing=sharing, examples=len(batch))
    if not each:
        return score(P, (0.0, 1.0, 2.0))
    K = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    places = combination(P, K[:, None, None] * torch.eye(len(batch), dtype=torch.float64))
    return score.of_each_example(P, places)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 4),
    batch=st.lists(st.integers(-8, 8).map(float), min_size=1, max_size=7),
    split=st.sampled_from(SPLITS),
    reverse=st.booleans(),
)
def test_every_process_gets_the_losses_of_a_single_process(size, batch, split, reverse):
    def order(count):
        return list(range(count))[::-1] if reverse else list(range(count))

    B = len(batch)
    wanted = torch.tensor([[batch[b] + k * (b + 1) for b in range(B)] for k in range(3)])
    for means in run_in_threads(
        size, split, lambda sharing: losses_of(batch, order, sharing, False)
    ):
        assert means == pytest.approx(wanted.mean(1).tolist(), abs=1e-5)
    for each in run_in_threads(size, split, lambda sharing: losses_of(batch, order, sharing, True)):
        torch.testing.assert_close(each, wanted.double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_each_row_of_an_evaluation_is_scored_once(split, count):
    rows = run_in_threads(3, split, lambda sharing: list(sharing.rows(count)))
    assert sorted(row for mine in rows for row in mine) == list(range(count))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("stopped", [0, 3])
@pytest.mark.parametrize("each", [False, True])
def test_when_one_process_is_asked_to_stop_all_stop(split, stopped, each):
    """Also if it has no candidate of its own: there are 3 candidates for 4 processes."""

    def work(sharing):
        x = torch.zeros(1)
        engine, B = InPlace({"w": x}), 5
        P = Subspace({}, {}, {"w": torch.ones(1, B if each else 1)})
        here = len(sharing.examples(B))

        def check():
            if sharing.wire.rank == stopped:
                raise Stopped("SIGTERM")

        parts = [MicroBatch(here, 1, lambda copies: torch.ones(1, here))]
        score = Score(engine, parts, sharing=sharing, examples=B, check=check)
        if not each:
            return score(P, (0.1, 0.2, 0.3))
        places = combination(P, torch.eye(B, dtype=torch.float64).repeat(3, 1, 1))
        return score.of_each_example(P, places)

    assert [type(result) for result in run_in_threads(4, split, work)] == [Stopped] * 4


def test_an_infinite_loss_is_no_request_to_stop():
    assert not is_stopped(torch.tensor([float("inf"), float("nan"), 1e29]))
    assert is_stopped(torch.tensor([0.5, STOPPED / 4]))


def test_the_mean_of_the_gradients_is_that_of_the_whole_batch():
    """DDP takes the mean over the processes, whatever the sizes of shares and micro-batches."""
    w = [torch.tensor(2.0, requires_grad=True) for _ in range(3)]
    examples = torch.arange(1.0, 8.0)

    def work(sharing):
        weight = w[sharing.wire.rank]
        parts = [
            MicroBatch(len(x), 1, lambda copies, x=x: (weight**2 * x)[None])
            for x in examples[list(sharing.examples(7))].split(2)
        ]
        engine = InPlace({"w": weight})
        return Score(engine, parts, sharing=sharing, examples=7).differentiate()

    assert run_in_threads(3, SplitBatch, work) == pytest.approx([4 * 28 / 7] * 3)
    assert sum(float(weight.grad) for weight in w) / 3 == pytest.approx(2 * 2 * 28 / 7)


@pytest.mark.parametrize("call", [1, 2])
def test_one_stopping_process_stops_all_before_the_gradient_exchange(call):
    calls = []

    def check():
        calls.append(None)
        if len(calls) == call:
            raise Stopped("SIGTERM")

    def work(sharing):
        weight = torch.tensor(2.0, requires_grad=True)
        parts = [MicroBatch(1, 1, lambda copies: weight.view(1, 1)) for _ in range(2)]
        engine, first = InPlace({"w": weight}), sharing.wire.rank == 0
        options = {"check": check} if first else {}
        return Score(engine, parts, sharing=sharing, examples=6, **options).differentiate()

    assert [type(result) for result in run_in_threads(3, SplitBatch, work)] == [Stopped] * 3


def test_gradient_norms_are_those_of_the_whole_batch():
    """Without DDP, each process adds its own gradient to those of the others."""
    examples = torch.arange(1.0, 8.0, dtype=torch.float64)

    def work(sharing):
        w = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
        mine = examples[list(sharing.examples(7))]
        engine = InPlace({"w": w})
        parts = [MicroBatch(len(mine), 1, lambda copies: (w.sum() * mine)[None])]
        score = Score(engine, parts, sharing=sharing, examples=7)
        return score.recorded_mean(lambda: gradient_norms(score, [["w"]]))

    # d/dw of the mean is 28 / 7 for both elements.
    for result in run_in_threads(3, SplitBatch, work):
        assert result == pytest.approx([4 * 2**0.5])
    (error, _) = run_in_threads(2, SplitCandidates, work)
    assert str(error).startswith("parallel.split: given 'candidates'; allowed: batch")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_failed_candidate_leaves_the_losses_of_the_others_intact(split, bad):
    """In one process only, and also if it is the first, relative to which losses are sent."""

    def work(sharing):
        x = torch.zeros(1)
        mine = sharing.examples(4)

        def losses(copies):
            k = round(float(x))
            return torch.tensor([[float("inf") if k == bad and b == 3 else b + k for b in mine]])

        score = Score(
            InPlace({"w": x}), [MicroBatch(len(mine), 1, losses)], sharing=sharing, examples=4
        )
        return score(Subspace({}, {}, {"w": torch.ones(1, 1)}), (0.0, 1.0, 2.0), finite=False)

    wanted = [float("inf") if k == bad else 1.5 + k for k in range(3)]
    assert run_in_threads(2, split, work) == [wanted, wanted]
