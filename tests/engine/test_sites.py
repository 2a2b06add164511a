"""Something else in the place of a weight, for a while."""

from __future__ import annotations

import pytest
import torch
from models import model

from lozo_bench.engine.sites import Sites
from lozo_bench.errors import UserError


def test_a_tied_weight_is_replaced_wherever_it_stands_and_put_back():
    of = model("opt")
    X = dict(of.named_parameters())
    name = "model.decoder.embed_tokens.weight"
    other = torch.zeros(40, 16)
    with Sites(of, X).holding({name: other}):
        assert of.lm_head.weight is other
        assert of.model.decoder.embed_tokens.weight is other
    assert of.lm_head.weight is X[name]
    assert of.model.decoder.embed_tokens.weight is X[name]


def test_they_are_put_back_after_an_error():
    of = model("gpt2")
    X = dict(of.named_parameters())
    with pytest.raises(KeyboardInterrupt), Sites(of, X).holding({"transformer.wte.weight": X}):
        raise KeyboardInterrupt
    assert dict(of.named_parameters()).keys() == X.keys()
    assert of.transformer.wte.weight is X["transformer.wte.weight"]


def test_a_tensor_that_is_no_parameter_of_the_model_is_refused():
    with pytest.raises(UserError, match="no parameter 'w'"):
        Sites(model("opt"), {"w": torch.zeros(2, 2)})
