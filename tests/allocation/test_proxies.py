"""Proxies give the numbers that a calculation by hand gives, and the model back as it was."""

from __future__ import annotations

import logging
from math import sqrt
from types import SimpleNamespace

import pytest
import torch
from gated_models import PROXIES, Run, part, stack, with_proxy
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from lozo_bench.allocation.normalise import normalised
from lozo_bench.allocation.taps import gradients_of_module, observed
from lozo_bench.config.build import build
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.low_rank_modules import low_rank_modules


class Layer(nn.Module):
    """One projection W = [[1, 2], [-3, 4]] with s = 2, A = [3, -4] and B = [5, -6]."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(pad_token_id=0)
        self.device = torch.device("cpu")
        self.embeddings = nn.Embedding(4, 2)
        self.q_proj = nn.Linear(2, 2, bias=False)

    def get_input_embeddings(self):
        return self.embeddings

    def forward(self, input_ids, attention_mask=None):
        return SimpleNamespace(logits=self.q_proj(self.embeddings(input_ids)))


def layer(B=(5.0, -6.0)):
    model = Layer().double()
    inject_adapter_in_model(LoraConfig(r=1, lora_alpha=2, target_modules=["q_proj"]), model)
    (module,) = low_rank_modules(model)
    model.embeddings.weight.data[2] = torch.tensor([1.0, 2.0])
    model.q_proj.base_layer.weight.data = torch.tensor([[1.0, 2.0], [-3.0, 4.0]]).double()
    module.A.data = torch.tensor([[3.0, -4.0]]).double()
    module.B.data = torch.tensor(B).double().view(2, 1)
    return model, module


def scores_of(name, model, module, *losses, **options):
    """Return the score of a proxy on batches of one row with these losses of the logits."""
    node = with_proxy({"proxy": name})["proxy"] | options
    engine = InPlace({"A": module.A, "B": module.B}, model)

    def batch(loss):
        def of_copies(copies):
            return loss(model(torch.full((copies, 1), 2)).logits[:, 0]).view(copies, 1)

        return Score(engine, [MicroBatch(size=1, tokens=1, losses=of_copies)])

    scores = build(node, "proxy").scores([module], [batch(loss) for loss in losses], Draws(0), 0)
    assert scores.shape == (1,)
    assert scores.dtype == torch.float64
    return scores.item()


def first_minus_second(y):
    return y[:, 0] - y[:, 1]


# With x = [1, 2] and G = [1, -1]: A x = -5, G B = 11, so dL/dA = 2 * 11 x = [22, 44] and
# dL/dB = 2 * -5 G = [-10, 10].
BY_HAND = {
    "constant": 1.0,
    "grad_norm": sqrt(22**2 + 44**2) + sqrt(200),
    "snip": 3 * 22 + 4 * 44 + 5 * 10 + 6 * 10,
    "dense_gradient": sqrt(1 + 4 + 1 + 4),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_score_of_one_layer_is_that_by_hand(name):
    assert scores_of(name, *layer(), first_minus_second) == pytest.approx(BY_HAND[name])


@pytest.mark.parametrize("name", ["grad_norm", "snip", "dense_gradient"])
def test_gradients_of_batches_are_summed(name):
    three = scores_of(name, *layer(), first_minus_second, lambda y: 2 * first_minus_second(y))
    assert three == pytest.approx(3 * BY_HAND[name])
    assert scores_of(name, *layer(), lambda y: y[:, 0], lambda y: -y[:, 0]) == 0


def test_synflow_is_that_by_hand_and_gives_all_bits_back():
    model, module = layer()
    model.q_proj.base_layer.weight.data[0, 0] = -0.0
    before = {name: x.clone() for name, x in model.state_dict().items()}
    # 8 positions of x = [1, 1] with G = [1, 1]: |A| x = 7, G |B| = 11.
    # dR/dA = 2 * 8 * 11 [1, 1], dR/dB = 2 * 8 * 7 [1, 1]
    by_hand = (3 + 4) * 176 + (5 + 6) * 112
    assert scores_of("synflow", model, module, first_minus_second) == pytest.approx(by_hand)
    # Of the loss, G = [1, -1] as before: G |B| = -1, |A| x = 7.
    of_loss = scores_of("synflow", model, module, first_minus_second, flow="loss")
    assert of_loss == pytest.approx((3 + 4) * 2 + (5 + 6) * 14)
    after = model.state_dict()
    assert {n: x.view(torch.int64).tolist() for n, x in after.items()} == {
        n: x.view(torch.int64).tolist() for n, x in before.items()
    }
    assert module.A.grad is None


@pytest.mark.parametrize(("kept", "score"), [(0.0, 0), (0.3, 3), (0.55, 6), (1.0, 10)])
def test_alpha_test_is_the_smallest_share_of_the_output_with_the_same_loss(kept, score):
    model, module = layer(B=(0.0, 0.0))  # the output is W x = [5, 5]
    found = scores_of("alpha_test", model, module, lambda y: 1 + (5 * kept - y[:, 0]).relu())
    assert found == score


def test_grad_norm_at_zero_is_an_estimate_of_the_norm_of_the_weights_gradient():
    """In the mean over A, which is uniform, it is s sqrt(r / (3 n)) ||dL/dW||_F."""
    r, n, m, s = 8, 64, 32, 2.0
    drawn = Draws(0).normal("x", 0, {"x": (5, n), "G": (5, m)}, dtype=torch.float64)
    norms = []
    uniform = Draws(0).uniform_range("A", 0, "A", 0, 200 * r * n).double()
    for A in (2 * uniform - 1).view(200, r, n) / sqrt(n):
        module = SimpleNamespace(A=A, B=torch.zeros(m, r).double(), scaling=s)
        dA, dB = gradients_of_module(module, drawn["x"], drawn["G"])
        assert not dA.any()
        norms.append(dB.norm())
    dense = float((drawn["G"].T @ drawn["x"]).norm())
    mean = float(torch.stack(norms).mean())
    assert mean == pytest.approx(s * sqrt(r / (3 * n)) * dense, rel=0.05)


def test_a_module_that_is_off_is_observed_as_if_it_were_on():
    """At B = 0 the function is the same, so the gradients are those that autograd gives."""
    tuned = stack()
    modules, gates = tuned.gates.modules, tuned.gates
    batch = part(tuned.model, 1)
    batch.losses(1).sum().backward()
    expected = [(m.A.grad.clone(), m.B.grad.clone()) for m in modules]
    loss = batch.losses(1)
    gates.set(torch.zeros(len(modules), dtype=torch.int64))
    with observed(modules, gradients_of_module) as sums:
        observed_loss = batch.losses(1)
        observed_loss.sum().backward()
    assert torch.equal(observed_loss, loss)
    for i, (dA, dB) in enumerate(expected):
        torch.testing.assert_close(sums[i], [dA, dB], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", PROXIES)
def test_scoring_leaves_the_weights_and_the_gates_as_they_are(name):
    run = Run(stack(B=0.3), proxy=name)
    before = fingerprint(run.engine.tensors())
    run.optimizer._scores(run.score())
    assert fingerprint(run.engine.tensors()) == before
    assert all(x.grad is None for x in run.tuned.X.values())


@pytest.mark.parametrize("name", ["snip", "synflow"])
def test_a_saliency_from_zero_never_changes_the_set_and_says_so_once(name, caplog):
    run = Run(stack(layers=24, scale=0.1), proxy=name, batches=1)
    with caplog.at_level(logging.WARNING):
        events = run.steps(10)
    zeros = [sum(float(x) == 0 for x in e["scores"].split()) for e in events]
    assert zeros == [48] + 9 * [36]
    assert len({e["enabled"] for e in events}) == 1
    assert events[0]["enabled"].count("1") == 12
    (said,) = caplog.messages
    assert said.startswith("allocation: 48 of 48 modules have the score 0 with ")


def test_scores_of_other_ranks_and_factors_come_on_one_scale():
    modules = [
        SimpleNamespace(rank=4, scaling=0.5, group="q"),
        SimpleNamespace(rank=1, scaling=2.0, group="q"),
        SimpleNamespace(rank=4, scaling=2.0, group="v"),
    ]
    raw = torch.tensor([1.0, 3.0, 8.0], dtype=torch.float64)
    assert normalised("none", modules, raw).tolist() == [1, 3, 8]
    assert normalised("rank", modules, raw).tolist() == [1, 1.5, 2]
    assert normalised("group", modules, raw).tolist() == [0.5, 1.5, 1]
