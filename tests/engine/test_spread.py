"""The spread of hidden states: clipped, without padding, over all rows of all processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from models import MAKERS, model, part

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.sharing import Alone
from lozo_bench.engine.spread import real_positions
from lozo_bench.engine.subspace import Subspace, along
from lozo_bench.errors import Stopped, UserError
from lozo_bench.models.capabilities import own_option_mask
from lozo_bench.randomness.draws import Draws

ROWS = [(5, 6, 7, 8, 9, 10, 11), (11, 12, 13), (14, 15, 16, 17, 18)]


def expected(net, rows, padding=False, clip=3.0, rounds=5):
    """The same in NumPy, from the hidden states that transformers returns."""
    ids = torch.tensor([(*row, *[1] * (7 - len(row))) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (7 - len(row)) for row in rows])
    with torch.no_grad():
        states = net(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states
    found = [np.std(net.get_input_embeddings().weight.detach().numpy())]
    for state in states[1:-1]:
        x = state[torch.ones_like(mask).bool() if padding else mask.bool()].numpy()
        for _ in range(rounds):
            x = x.clip(x.mean() - clip * x.std(), x.mean() + clip * x.std())
        found.append(x.std())
    return found


def hooks(net):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def fused(net):
    return Fused(net, dict(net.named_parameters()), Folder("nearest", Draws(0)))


@pytest.mark.parametrize("kind", MAKERS)
def test_it_is_the_clipped_standard_deviation_of_what_enters_each_layer(kind):
    net = model(kind)
    score = Score(fused(net), [part(net, ROWS)])
    options = [{}, {"padding": True}, {"clip": 0.7, "rounds": 3}, {"rounds": 0}]
    wanted = [expected(net, ROWS, **given) for given in options]
    before = hooks(net)
    for given, each in zip(options, wanted, strict=True):
        assert score.hidden_spread(**given) == pytest.approx(each, rel=1e-9)
    assert hooks(net) == before


@pytest.mark.parametrize(
    "engine_of", [fused, lambda net: InPlace(dict(net.named_parameters()), net)]
)
def test_it_is_taken_at_the_weights_with_their_adapter(engine_of):
    net = model("llama")
    name = "model.layers.0.self_attn.q_proj.weight"
    U, V = torch.ones(16, 1).double(), torch.linspace(0, 9, 16).double()[:, None]
    P = Subspace({name: U}, {name: V}, {})
    engine = engine_of(net)
    engine.set_adapter(P, along(P, 1.0))
    found = Score(engine, [part(net, ROWS)]).hidden_spread()
    merged = model("llama")
    with torch.no_grad():
        merged.get_parameter(name).add_(U @ V.T)
    wanted = expected(merged, ROWS)
    assert wanted != pytest.approx(expected(model("llama"), ROWS), rel=1e-6)
    assert found == pytest.approx(wanted, rel=1e-9)


class Several(Alone):
    """The totals of several threads, each of which is a process."""

    def __init__(self, count):
        self.added, self.barrier = [], Barrier(count, timeout=20)

    def totals(self, totals):
        self.added.append(totals)
        self.barrier.wait()
        total = torch.stack(list(self.added)).sum(0)
        if self.barrier.wait() == 0:
            self.added.clear()
        self.barrier.wait()
        return total


@pytest.mark.parametrize("shares", [[[0, 1], [2]], [[0, 1, 2], []]])
def test_processes_agree_even_if_one_has_no_rows(shares):
    nets = [model("roberta") for _ in shares]
    sharing = Several(len(shares))

    def of(net, share):
        parts = [part(net, [ROWS[i]]) for i in share]
        return Score(fused(net), parts, sharing=sharing, examples=3).hidden_spread()

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(of, nets, shares))
    assert found[0] == found[1] == pytest.approx(expected(nets[0], ROWS), rel=1e-9)


def test_a_stop_in_one_process_stops_all():
    nets, sharing = [model("roberta") for _ in range(2)], Several(2)
    asked = []

    def stop():
        asked.append(1)
        if len(asked) == 3:
            raise Stopped

    def of(net, check):
        with pytest.raises(Stopped):
            Score(fused(net), [part(net)], sharing=sharing, check=check).hidden_spread()

    with ThreadPoolExecutor() as pool:
        list(pool.map(of, nets, [stop, lambda: None]))


def test_a_replay_returns_the_record_and_runs_no_model():
    net = model("opt").float()
    score = Score(fused(net), [part(net)])
    found = score.hidden_spread()

    def never(copies):
        raise AssertionError

    again = Score(fused(net), [MicroBatch(1, 1, never)], recorded=score.answers)
    assert again.hidden_spread() == found
    assert score.answers[0].dtype == torch.float32
    assert len(found) == 2


def test_what_has_no_statistics_is_refused():
    net = torch.nn.Linear(2, 2)
    batch = MicroBatch(1, 1, lambda copies: net(torch.ones(copies, 2))[:, :1])
    with pytest.raises(UserError, match="Linear has no word embeddings or no stack of layers"):
        Score(fused(net.eval()), [batch]).hidden_spread()
    net = model("llama")
    with torch.no_grad():
        net.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteLossError):
        Score(fused(net), [part(net)]).hidden_spread()


def test_real_positions_are_those_that_attend_to_themselves():
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert real_positions(mask).tolist() == mask.bool().tolist()
    block = torch.tensor([[0, 1, 2, -1, -1], [0, 0, 1, 1, 2]])
    packed = own_option_mask(block, torch.float32)
    assert real_positions(packed).tolist() == (block >= 0).tolist()
    assert real_positions(packed == 0).tolist() == (block >= 0).tolist()
    assert (packed == 0).any(-1).all()  # a softmax over nothing is NaN
