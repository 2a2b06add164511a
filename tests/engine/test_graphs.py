"""When a pass is recorded and repeated; the recorder itself needs a GPU and is replaced here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from models import model, part
from test_packed import engine

from lozo_bench.engine import graphs as module
from lozo_bench.engine.graphs import Graphs, Recorded, _HostReads
from lozo_bench.engine.protocol import Inputs, MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.randomness.draws import Draws


class OnTheHost:
    """Records a pass as a call that computes the same again in the same memory."""

    def __init__(self, wrong=0.0, error=None):
        self.recorded, self.replays, self.wrong, self.error = [], 0, wrong, error

    def __call__(self, part, run):
        if self.error is not None:
            raise self.error
        losses = run(part).clone()
        self.recorded.append(part)

        def replay():
            self.replays += 1
            losses.copy_(run(part) + self.wrong)

        return Recorded(part.inputs.tensors, losses, replay)


def batch(*values, kind="plain"):
    x = torch.tensor(values)
    inputs = Inputs({"x": x}, lambda tensors, copies: tensors["x"].repeat(copies, 1) ** 2, kind)
    return MicroBatch(len(values), len(values), inputs.copies, inputs=inputs)


def graphs_of(recorder):
    return Graphs(lambda: recorder)


def losses(graphs, part, versions=0, memory=None):
    return graphs.losses(part, versions, memory, lambda part: part.losses(1)).tolist()


def test_a_pass_is_recorded_when_its_shapes_come_again_and_then_repeated_on_other_values():
    recorder = OnTheHost()
    graphs = graphs_of(recorder)
    assert losses(graphs, batch(1.0, 2.0)) == [[1.0, 4.0]]
    assert recorder.recorded == []
    assert losses(graphs, batch(3.0, 2.0)) == [[9.0, 4.0]]
    assert len(recorder.recorded) == 1
    for value in range(9):
        assert losses(graphs, batch(float(value), 1.0)) == [[value**2, 1.0]]
    assert recorder.replays == 9


@pytest.mark.parametrize("other", ["shapes", "kind", "versions"])
def test_another_shape_kind_or_number_of_versions_has_a_pass_of_its_own(other):
    recorder = OnTheHost()
    graphs = graphs_of(recorder)
    for _ in range(3):
        losses(graphs, batch(1.0, 2.0))
    changed = batch(1.0) if other == "shapes" else batch(1.0, 2.0, kind=other)
    losses(graphs, changed, versions=int(other == "versions"))
    assert (len(recorder.recorded), recorder.replays) == (1, 1)


def test_weights_that_moved_in_memory_end_all_recorded_passes():
    recorder = OnTheHost()
    graphs = graphs_of(recorder)
    for memory in (None, None, None, object()):
        losses(graphs, batch(1.0), memory=memory)
    assert recorder.replays == 1
    losses(graphs, batch(1.0), memory=object())
    assert recorder.replays == 1


def test_losses_that_differ_from_those_of_a_usual_pass_are_not_used():
    recorder = OnTheHost(wrong=1e-3)
    graphs = graphs_of(recorder)
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert losses(graphs, batch(value)) == [[value**2]]
    assert recorder.replays == 1


def test_a_pass_that_cannot_be_recorded_runs_as_usual_and_is_not_tried_again():
    recorder = OnTheHost(error=RuntimeError("operation not permitted when stream is capturing"))
    graphs = graphs_of(recorder)
    for value in (1.0, 2.0, 3.0, 4.0):
        assert losses(graphs, batch(value)) == [[value**2]]
    assert recorder.recorded == []


def test_more_shapes_than_graphs_do_not_record_one_another_away(monkeypatch):
    """The graphs are those of the shapes that come most often."""
    monkeypatch.setattr(module, "_MOST_GRAPHS", 2)
    recorder = OnTheHost()
    graphs = graphs_of(recorder)
    for _ in range(10):
        for length in (1, 2, 3, 4):
            losses(graphs, batch(*[1.0] * length))
    assert [recorded.size for recorded in recorder.recorded] == [1, 2]
    for _ in range(20):
        losses(graphs, batch(1.0, 1.0, 1.0))
    assert [recorded.size for recorded in recorder.recorded] == [1, 2, 3]


def test_a_micro_batch_without_inputs_runs_as_usual():
    recorder = OnTheHost()
    graphs = graphs_of(recorder)
    for value in (1.0, 2.0, 3.0, 4.0):
        assert losses(graphs, replace(batch(value), inputs=None)) == [[value**2]]
    assert recorder.recorded == []


def test_what_the_host_reads_is_noted_and_given_again():
    x = torch.tensor([1, 2])
    with _HostReads() as reads:
        first = bool((x > 0).all()), int(x.sum()), x.tolist()
    x.zero_()
    with reads.repeated():
        again = bool((x > 0).all()), int(x.sum()), x.tolist()
        with pytest.raises(RuntimeError, match="more values"):
            x[0].item()
    assert first == again == (True, 3, [1, 2])


def test_steps_with_recorded_passes_are_those_without():
    """The versions of the weights stay in their memory while their values change."""
    found = {}
    for recorder in (None, OnTheHost()):
        net = model("opt")
        made = engine(net, packed=True, per_forward=2, max_rank=3)
        made._graphs = None if recorder is None else graphs_of(recorder)
        whole = part(net)
        inputs = Inputs({}, lambda tensors, copies, whole=whole: whole.losses(copies), "one")
        recordable = replace(whole, inputs=inputs)
        optimizer = Lozo(made, Draws(1), lr=1e-3, eps=1e-3, rank=2, nu=3)
        found[recorder] = [optimizer.step(Score(made, [recordable])).loss for _ in range(12)]
    with_graphs, without = found.popitem()[1], found.popitem()[1]
    assert with_graphs == without
    assert recorder.replays > 3
