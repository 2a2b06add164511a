"""Extra tensors that are part of a model's function are part of both engines' state."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.tensors import fingerprint, on_cpu
from lozo_bench.engine.terms import Extras
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws


def fused(net, X, extras):
    return Fused(net, X, Folder("nearest", Draws(0)), extras=extras)


ENGINES = [lambda net, X, extras: InPlace(X, net, extras), fused]


def engine_with_gate(engine_of, applied=None):
    net = torch.nn.Linear(3, 2).eval()
    gate = torch.ones(2)
    extras = Extras({"gate": gate}, (lambda: None) if applied is None else applied)
    return engine_of(net, dict(net.named_parameters()), extras), gate


def test_what_is_saved_is_contiguous_whatever_the_tensor_is():
    """safetensors refuses to write anything else."""
    x = torch.arange(6.0).view(2, 3).T
    saved = on_cpu({"x": x})["x"]
    assert saved.is_contiguous()
    assert saved.equal(x)


@pytest.mark.parametrize("engine_of", ENGINES, ids=["in_place", "fused"])
def test_extra_tensors_are_saved_fingerprinted_restored_and_applied(engine_of):
    calls = []
    engine, gate = engine_with_gate(engine_of, lambda: calls.append(gate.tolist()))
    before, state = fingerprint(engine.tensors()), engine.state()
    gate[0] = 0.0
    assert fingerprint(engine.tensors()) != before
    engine.load_state(state)
    assert gate.tolist() == [1.0, 1.0]
    assert calls == [[1.0, 1.0]]
    assert fingerprint(engine.tensors()) == before


@pytest.mark.parametrize("engine_of", ENGINES, ids=["in_place", "fused"])
def test_a_state_with_other_extra_tensors_is_refused(engine_of):
    engine, _ = engine_with_gate(engine_of)
    state = {name: x for name, x in engine.state().items() if not name.startswith("extra/")}
    with pytest.raises(UserError, match=r"extra tensors none, and this model has gate"):
        engine.load_state(state)
