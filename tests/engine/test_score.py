"""Losses of a batch: how they are recorded, made again and refused."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager

import pytest
import torch

from lozo_bench.engine.finite import NonFiniteLossError, require_finite
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch, ScoredBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import Subspace, along
from lozo_bench.errors import Stopped, UserError
from lozo_bench.randomness.draws import Draws


def part(values):
    return MicroBatch(len(values), 1, lambda copies: torch.tensor([values] * copies))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_example_makes_a_bad_loss(bad):
    with pytest.raises(NonFiniteLossError, match=r"the losses of this step are 1\.5, (nan|inf)"):
        require_finite(torch.tensor([[1.0, 2.0], [1.0, bad]]))


def test_zero_is_a_loss():
    losses = torch.zeros(2, 3)
    assert require_finite(losses) is losses


def recorded_and_made_again(engine, ask):
    """What a score tells when it is asked, and when it has it on record."""
    first = Score(engine, [part([1.0, 2.0, 4.0])])
    answer = ask(first)
    again = Score(engine, [], examples=3, recorded=first.answers)
    return answer, ask(again), first.answers


def test_what_was_told_is_told_again_bit_for_bit_without_a_pass():
    engine = InPlace({"w": torch.zeros(3)})
    P = Subspace({}, {}, {"w": torch.ones(3, 1)})
    first, again, told = recorded_and_made_again(engine, lambda score: score(P, (0.1, -0.1)))
    assert first == again
    assert [(answer.dtype, tuple(answer.shape)) for answer in told] == [(torch.float32, (2,))]


def test_means_are_told_as_one_and_what_the_others_differ_by():
    """So that a slope keeps its digits in four bytes: 1e-9 is nothing beside 1 in float32."""
    engine = InPlace({"w": torch.zeros(1)})
    P = Subspace({}, {}, {"w": torch.ones(1, 1)})
    losses = iter([1.0, 1.0 + 1e-9])
    one = MicroBatch(1, 1, lambda copies: torch.tensor([[next(losses)]], dtype=torch.float64))
    plus, minus = Score(engine, [one])(P, (1.0, -1.0))
    assert minus - plus == pytest.approx(1e-9, rel=1e-6)


def test_float64_weights_are_told_in_float64():
    engine = InPlace({"w": torch.zeros(1, dtype=torch.float64)})
    P = Subspace({}, {}, {"w": torch.ones(1, 1, dtype=torch.float64)})
    one = MicroBatch(1, 1, lambda copies: torch.tensor([[1 / 3]], dtype=torch.float64))
    assert Score(engine, [one])(P, (0.0,)) == [1 / 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scoring_nothing_leaves_the_same_rounding_in_the_weights(dtype):
    """Each move of the weights in place rounds; a step that is made again must round alike."""
    start = torch.linspace(-1, 1, 7, dtype=dtype)
    P = Subspace({}, {}, {"w": torch.linspace(0.3, 0.9, 7)[:, None]})
    ends = []
    for parts in ([MicroBatch(1, 1, lambda copies: torch.ones(1, 1))], []):
        engine = InPlace({"w": start.clone()})
        recorded = None if parts else [torch.ones(2)]
        Score(engine, parts, examples=1, recorded=recorded)(P, (0.37, -0.37))
        engine.move(P, along(P, 0.011))
        ends.append(engine.X["w"])
    assert torch.equal(ends[0], ends[1])


def test_a_request_to_stop_leaves_the_weights_where_they_were():
    X = {"w": torch.zeros(1)}
    P = Subspace({}, {}, {"w": torch.ones(1, 1)})
    looks = []

    def check():
        looks.append(float(X["w"]))
        if len(looks) == 3:
            raise Stopped("SIGTERM")

    one = MicroBatch(1, 1, lambda copies: torch.ones(1, 1))
    with pytest.raises(Stopped):
        Score(InPlace(X), [one], check=check)(P, (1.0, -1.0))
    assert looks == [0.0, 1.0, -1.0]
    assert float(X["w"]) == 0.0


@pytest.mark.parametrize("huge", [1e28, 1e31, 3e38, -1e31])
def test_a_huge_loss_is_a_bad_loss_and_no_request_to_stop(huge):
    P = Subspace({}, {}, {"w": torch.ones(3, 1)})
    w = torch.zeros(3, requires_grad=True)
    score = Score(InPlace({"w": w}), [part([1.0, huge])])
    with pytest.raises(NonFiniteLossError, match="inf"):
        score(P, (0.1, -0.1))
    losses = MicroBatch(2, 1, lambda copies: torch.tensor([[1.0, huge]]) + w.sum())
    with pytest.raises(NonFiniteLossError, match="inf"):
        Score(InPlace({"w": w}), [losses]).differentiate()


LINE = Subspace({}, {}, {"w": torch.ones(1, 1, dtype=torch.float64)})


def shaped(values):
    """Return an engine with the weight 0, and a batch whose loss at weight k is values[k]."""
    w = torch.zeros(1, dtype=torch.float64)
    batch = MicroBatch(
        1, 1, lambda copies: torch.tensor([[values[round(float(w))]]], dtype=w.dtype)
    )
    return InPlace({"w": w}), batch


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("losses", "returned"),
    [
        ([1.5, NAN, 2.5], [1.5, INF, 2.5]),
        ([NAN, 1.5, 2.5], [INF, 1.5, 2.5]),
        ([INF, 1.5, -INF], [INF, 1.5, INF]),
        ([0.0, 1.5, 2.5], [0.0, 1.5, 2.5]),
        ([1e20, 1.5, 2.5], [1e20, 1.5, 2.5]),  # a difference from 1e20 would lose the others
    ],
)
def test_a_population_survives_candidates_whose_loss_is_not_finite(losses, returned):
    engine, batch = shaped(losses)
    score = Score(engine, [batch])
    assert score(LINE, (0.0, 1.0, 2.0), finite=False) == returned
    assert score.failed_candidates == sum(loss == INF for loss in returned)
    again = Score(engine, [], examples=1, recorded=score.answers)
    assert again(LINE, (0.0, 1.0, 2.0), finite=False) == returned
    assert again.failed_candidates == score.failed_candidates


def test_if_no_candidate_has_a_finite_loss_the_step_is_skipped():
    engine, batch = shaped([NAN, INF, NAN])
    with pytest.raises(NonFiniteLossError):
        Score(engine, [batch])(LINE, (0.0, 1.0, 2.0), finite=False)
    assert float(engine.X["w"]) == 0.0


def test_losses_of_streams_are_recorded_with_those_of_the_batch_in_order():
    engine, batch = shaped([1.0, 2.0, 3.0])
    drawn = []

    def streams(name):
        drawn.append(name)
        return ScoredBatch([part([10.0, 20.0])], examples=2, tokens=7)

    score = Score(engine, [batch], streams=streams)
    upper = score.on("upper")
    assert upper(LINE, (0.0,)) == [15.0]
    assert score(LINE, (1.0,)) == [2.0]
    assert score.on("upper")(LINE, (0.0, 0.0)) == [15.0, 15.0]
    assert drawn == ["upper", "upper"]
    assert [answer.tolist() for answer in score.answers] == [[15.0], [2.0], [15.0, 0.0]]
    counts = [(each.forwards, each.examples, each.tokens) for each in score.of_streams]
    assert counts == [(1, 2, 7), (2, 2, 7)]

    replay = Score(
        engine, [], examples=1, recorded=score.answers, streams=lambda _: ScoredBatch(examples=2)
    )
    assert replay.on("upper")(LINE, (0.0,)) == [15.0]
    assert replay(LINE, (1.0,)) == [2.0]
    assert replay.on("upper")(LINE, (0.0, 0.0)) == [15.0, 15.0]


def test_micro_batches_of_different_streams_are_differentiated_in_different_dropout():
    w = torch.ones(1, requires_grad=True)
    losses = MicroBatch(1, 1, lambda copies: w.view(1, 1).clone())
    numbers = []

    @contextmanager
    def dropout(part):
        numbers.append(part)
        yield

    score = Score(
        InPlace({"w": w}), [losses, losses], dropout=dropout,
        streams=lambda name: ScoredBatch([losses, losses], examples=2),
    )  # fmt: skip
    for each in (score, score.on("lower"), score.on("lower")):
        each.differentiate()
    assert len(set(numbers)) == 6


def test_a_stream_that_the_method_does_not_declare_is_refused():
    engine, batch = shaped([1.0])
    with pytest.raises(UserError, match=r"^optimizer: it asks for the stream 'upper'; declare it"):
        Score(engine, [batch]).on("upper")


@pytest.mark.parametrize("kind", ["low rank", "full rank", "of a stream"])
def test_a_score_leaves_no_direction_in_memory_until_python_collects_garbage(kind):
    w, gone = torch.ones(1), []
    parts = [MicroBatch(1, 1, lambda copies: w.view(1, 1) ** 2)]
    score = Score(InPlace({"w": w}), parts, streams=lambda name: ScoredBatch(parts, [0], 1, 1))
    gc.disable()
    try:
        direction = Subspace({}, {}, {"w": torch.ones(1, 1)})
        if kind == "full rank":
            direction = Gaussian(Draws(0), 1)
            score.full_rank(direction, [1e-3, -1e-3])
        elif kind == "low rank":
            score(direction, [1e-3, -1e-3])
        else:
            score.on("other")(direction, [1e-3, -1e-3])
        score.engine.flush()
        weakref.finalize(score, gone.append, "score")
        alive = weakref.ref(direction.draws if kind == "full rank" else direction.z["w"])
        del score, direction
        assert gone == ["score"]
        assert alive() is None
    finally:
        gc.enable()
