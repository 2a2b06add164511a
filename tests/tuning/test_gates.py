"""Gates turn low-rank modules on and off: in the function, for the optimizer, and in the state."""

from __future__ import annotations

import pytest
import torch
from tiny_models import ALL, loaded, logits, rows
from torch import nn

from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.gated_lora import GatedLora
from lozo_bench.tuning.lora import Lora

TARGETS = r"\.(q_proj|v_proj|query|value|c_attn)$"
OPTIONS = {"r": 3, "alpha": 6.0, "targets": TARGETS}


def gated(arch, B=True):
    """Make a gated model; its B are random unless ``B`` is false."""
    tuned = GatedLora(**OPTIONS).tune(loaded(arch), Draws(0))
    if B:
        for name, x in tuned.X.items():
            if "lora_B" in name:
                x.data = 0.1 * Draws(1).normal("B", 0, {name: tuple(x.shape)}, dtype=x.dtype)[name]
    return tuned


def only(gates, *numbers):
    return torch.tensor([i in numbers for i in range(len(gates.modules))])


@pytest.mark.parametrize("arch", ALL)
def test_modules_have_the_names_of_their_projections_and_blocks(arch):
    gates = gated(arch).gates
    per_block = {"opt": ["v_proj", "q_proj"], "llama": ["q_proj", "v_proj"]}
    per_block |= {"gpt2": ["c_attn"], "roberta": ["query", "value"]}
    assert [(m.layer, m.group) for m in gates.modules] == [
        (layer, group) for layer in range(2) for group in per_block[arch]
    ]
    assert all(m.scaling == 2 and m.rank == 3 and not m.is_shortcut for m in gates.modules)
    assert gates.active_parameters == sum(m.size for m in gates.modules)


def test_layers_that_end_alike_are_different_groups():
    tuning = GatedLora(r=1, alpha=1.0, targets=r"layer\.\d+\..*dense$")
    modules = tuning.tune(loaded("roberta"), Draws(0)).gates.modules
    groups = {"attention.output.dense", "intermediate.dense", "output.dense"}
    assert {m.group for m in modules} == groups


@pytest.mark.parametrize("arch", ALL)
def test_with_all_gates_on_it_is_lora_and_with_all_off_the_plain_model_to_the_bit(arch):
    this, lora = gated(arch, B=False), Lora(**OPTIONS).tune(loaded(arch), Draws(0))
    torch.testing.assert_close(dict(this.X), dict(lora.X), rtol=0, atol=0)
    this = gated(arch)
    for name, x in this.X.items():
        lora.X[name].data.copy_(x.data)
    assert torch.equal(logits(this, **rows()), logits(lora, **rows()))
    this.gates.set(only(this.gates))
    assert torch.equal(logits(this, **rows()), loaded(arch).model(**rows()).logits)


@pytest.mark.parametrize("arch", ALL)
def test_a_module_that_is_off_is_not_in_the_function_and_gets_no_gradient(arch):
    this, plain = gated(arch), gated(arch)
    this.gates.set(only(this.gates, 0))
    for m in plain.gates.modules[1:]:
        m.peft.scaling["default"] = 0.0
    result = logits(this, **rows())
    torch.testing.assert_close(result, logits(plain, **rows()), rtol=0, atol=1e-12)
    result.sum().backward()
    for i, m in enumerate(this.gates.modules):
        assert (m.A.grad is not None) == (m.B.grad is not None) == (i == 0) == m.A.requires_grad


@pytest.mark.parametrize("arch", ALL)
def test_a_rank_between_keeps_the_first_components_alone(arch):
    this, cut = gated(arch), gated(arch)
    ranks = this.gates.full.clone()
    ranks[0] = 2
    this.gates.set(ranks)
    first = cut.gates.modules[0]
    with torch.no_grad():
        first.A[2:] = 0
    assert torch.equal(logits(this, **rows()), logits(cut, **rows()))
    logits(this, **rows()).sum().backward()
    first = this.gates.modules[0]
    assert first.A.grad.any(1).tolist() == first.B.grad.any(0).tolist() == [True, True, False]
    lost = first.size // 3
    assert this.gates.active_parameters == sum(m.size for m in this.gates.modules) - lost


def test_all_on_comes_back_also_after_an_error():
    gates = gated("opt").gates
    gates.set(only(gates, 1))
    with gates.all_on():
        assert gates.on.all()
    with pytest.raises(ZeroDivisionError), gates.all_on():
        raise ZeroDivisionError
    assert gates.ranks.tolist() == [0, 3, 0, 0]
    assert [m.peft.disable_adapters for m in gates.modules] == [True, False, True, True]


def test_gates_are_in_the_engines_state_and_fingerprint():
    this = gated("opt")
    engine = InPlace(this.X, this.model, this.extras)
    before = fingerprint(engine.tensors())
    this.gates.set(only(this.gates, 0, 3))
    state = engine.state()
    assert fingerprint(engine.tensors()) != before
    expected = logits(this, **rows())
    again = gated("opt", B=False)
    InPlace(again.X, again.model, again.extras).load_state(state)
    assert again.gates.ranks.tolist() == [3, 0, 0, 3]
    assert torch.equal(logits(again, **rows()), expected)


def test_ranks_outside_the_modules_are_refused():
    gates = gated("opt").gates
    for ranks in ([4, 0, 0, 0], [-1, 0, 0, 0], [1, 1, 1]):
        with pytest.raises(ValueError, match="ranks from 0 to"):
            gates.set(torch.tensor(ranks))


def test_the_engine_shows_what_is_on_and_keeps_all():
    this = gated("opt")
    engine = InPlace(this.X, this.model, this.extras)
    assert list(engine.X) == list(this.X)
    this.gates.set(only(this.gates, 2))
    m = this.gates.modules[2]
    assert set(engine.X) == set(m.names)
    assert all(isinstance(x, nn.Parameter) for x in engine.X.values())
    assert set(this.X) == {name[2:] for name in engine.state() if name.startswith("X/")}
    this.gates.set(only(this.gates))
    assert len(engine.X) == 0
