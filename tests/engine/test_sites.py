"""Replacing the weights in a model temporarily."""

from __future__ import annotations

import pytest
import torch
from models import model

from lozo_bench.engine.sites import Sites
from lozo_bench.errors import UserError


def test_a_tied_weight_is_replaced_in_every_module_and_restored():
    net = model("opt")
    X = dict(net.named_parameters())
    name = "model.decoder.embed_tokens.weight"
    other = torch.zeros(40, 16)
    with Sites(net, X).holding({name: other}):
        assert net.lm_head.weight is other
        assert net.model.decoder.embed_tokens.weight is other
    assert net.lm_head.weight is X[name]
    assert net.model.decoder.embed_tokens.weight is X[name]


def test_the_weights_are_restored_after_an_error():
    net = model("gpt2")
    X = dict(net.named_parameters())
    with pytest.raises(KeyboardInterrupt), Sites(net, X).holding({"transformer.wte.weight": X}):
        raise KeyboardInterrupt
    assert dict(net.named_parameters()).keys() == X.keys()
    assert net.transformer.wte.weight is X["transformer.wte.weight"]


def test_a_tensor_that_is_not_a_parameter_of_the_model_is_refused():
    with pytest.raises(UserError, match="no parameter 'w'"):
        Sites(model("opt"), {"w": torch.zeros(2, 2)})
