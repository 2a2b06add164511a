"""The stack of layers is found by watching, and every parameter has its place in it."""

from __future__ import annotations

import pytest
import torch
from models import MAKERS, model, part
from torch import nn
from transformers import (
    GPTNeoConfig,
    GPTNeoForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from lozo_bench.engine.layers import Layers

PLACES = {  # besides those of the layers
    "opt": {"model.decoder.embed_tokens.weight": -1, "model.decoder.embed_positions.weight": -1,
            "model.decoder.final_layer_norm.weight": 2, "lm_head.weight": -1},
    "roberta": {"roberta.embeddings.word_embeddings.weight": -1, "lm_head.dense.weight": 2,
                "roberta.embeddings.LayerNorm.bias": -1, "lm_head.bias": 2},
    "gpt2": {"transformer.wte.weight": -1, "transformer.ln_f.weight": 2, "lm_head.weight": -1},
    "llama": {"model.embed_tokens.weight": -1, "model.norm.weight": 2, "lm_head.weight": 2},
    "bert": {"bert.embeddings.LayerNorm.weight": -1, "cls.predictions.bias": 2},
}  # fmt: skip


def watched(net):
    layers = Layers(net)
    with torch.no_grad():
        layers.watch(lambda: part(net).losses(1))
    return layers


@pytest.mark.parametrize("kind", MAKERS)
def test_each_parameter_has_the_place_at_which_it_acts(kind):
    net = model(kind)
    layers = watched(net)
    assert len(layers) == net.config.num_hidden_layers
    for i, layer in enumerate(layers.modules):
        for name, module in net.named_modules():
            if module is layer:
                inside = [f"{name}.{key}" for key, _ in layer.named_parameters()]
                assert {layers.first_changed([key]) for key in inside} == {i}
                assert layers.may_follow_others(inside) == (i > 0)
    for name, place in PLACES[kind].items():
        assert layers.first_changed([name]) == place, name
    assert layers.first_changed(["no.such.weight"]) == -1
    assert layers.first_changed([]) == len(layers)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_before_a_pass_was_watched_nothing_is_known():
    net = model("gpt2")
    layers = Layers(net)
    assert layers.first_changed(["transformer.h.1.ln_1.weight"]) is None
    assert layers.may_follow_others(["transformer.h.1.ln_1.weight"])
    assert not layers.may_follow_others(dict(net.named_parameters()))
    assert not Layers(nn.Linear(2, 2)).may_follow_others(["weight"])


class Stack(nn.Module):
    """Layers [rows, T, 4] that a function calls."""

    def __init__(self, call, of=4):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(of))
        self.extra = nn.ModuleList(nn.Linear(4, 3) for _ in range(9))
        self.soft = nn.Parameter(torch.zeros(4))
        self.call = call

    def forward(self, x):
        return self.call(self, x)


def in_order(self, x):
    for layer in self.layers:
        x = layer(x)
    return sum(layer(x).sum() for layer in self.extra)


def twice(self, x):
    for layer in (*self.layers, self.layers[0]):
        x = layer(x)
    return x


def backwards(self, x):
    for layer in reversed(self.layers):
        x = layer(x)
    return x


def two_dimensional(self, x):
    return in_order(self, x[:, 0])


@pytest.mark.parametrize(
    ("call", "found"), [(in_order, 4), (twice, 0), (backwards, 0), (two_dimensional, 0)]
)
def test_only_layers_that_are_called_once_in_order_with_a_hidden_state_are_a_stack(call, found):
    net = Stack(call)
    layers = Layers(net)
    assert layers.watch(lambda: net(torch.zeros(2, 3, 4))) == bool(found)
    assert len(layers) == found
    if found:
        assert layers.first_changed(["extra.0.weight"]) == 4
        assert layers.first_changed(["soft"]) == -1  # nobody sees when it is used
        assert layers.first_changed(["layers.3.bias", "layers.2.bias"]) == 2


def test_layers_that_hand_over_more_than_a_hidden_state_are_no_stack():
    """T5 returns the bias of its first layer's attention, and every later layer uses it."""
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2)
    net = T5ForConditionalGeneration(config).eval()
    ids = torch.ones(1, 3, dtype=torch.long)
    layers = Layers(net)
    assert not layers.watch(lambda: net(input_ids=ids, decoder_input_ids=ids, use_cache=False))


def test_layers_may_return_their_attention_weights_beside_the_hidden_state():
    """GPT-Neo's do, and no other layer reads them."""
    sizes = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "vocab_size": 20}
    net = GPTNeoForCausalLM(GPTNeoConfig(**sizes, attention_types=[[["global"], 2]])).eval()
    ids, layers = torch.ones(1, 3, dtype=torch.long), Layers(net)
    assert layers.watch(lambda: net(input_ids=ids, use_cache=False))
    hidden = torch.zeros(1)
    assert layers.returned(hidden) == (hidden, None)


def test_a_pass_that_fails_leaves_no_hooks():
    def failing(self, x):
        raise ZeroDivisionError

    net = Stack(failing)
    with pytest.raises(ZeroDivisionError):
        Layers(net).watch(lambda: net(torch.zeros(2, 3, 4)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
