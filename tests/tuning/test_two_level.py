"""All weights and an adapter with two sets of values."""

from __future__ import annotations

import pytest
import torch
from tiny_models import ALL, classifier, loaded

from lozo_bench.config.build import build
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.value_sets import ValueSets
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws

LORA = {
    "_target_": "lozo_bench.tuning.lora.Lora", "r": 2, "alpha": 4.0,
    "targets": r"\.(q_proj|v_proj|query|value|c_attn)$",
}  # fmt: skip
PREFIX = {"_target_": "lozo_bench.tuning.prefix.Prefix", "tokens": 3}
PROMPT = {"_target_": "lozo_bench.tuning.prompt.Prompt", "tokens": 3}
FULL = {"_target_": "lozo_bench.tuning.full.Full"}
IA3 = {
    "_target_": "lozo_bench.tuning.ia3.Ia3", "outputs": r"\.(k_proj|v_proj|key|value|c_attn)$",
    "inputs": r"\.(fc2|down_proj|output\.dense|mlp\.c_proj)$",
}  # fmt: skip


def two_level(adapter, arch="opt", dtype=torch.float64):
    options = {"_target_": "lozo_bench.tuning.two_level.TwoLevel", "adapter": adapter}
    return build(options, "tuning").tune(loaded(arch, dtype), Draws(0))


def alone(adapter, number):
    """Return the initial values of the adapter alone, of a draw."""
    tuned = build(adapter, "tuning").tune(loaded("opt"), Draws(0))
    if tuned.redraw is not None:
        tuned.redraw(number)
    return {name: x.detach() for name, x in tuned.X.items()}


@pytest.mark.parametrize("arch", ALL)
@pytest.mark.parametrize(
    "adapter", [LORA, PREFIX, PROMPT, IA3], ids=["lora", "prefix", "prompt", "ia3"]
)
def test_x_are_all_weights_and_only_the_adapter_is_differentiated(adapter, arch):
    tuned = two_level(adapter, arch)
    adapter = ValueSets(tuned.extras).parameters
    parameters = dict(tuned.model.named_parameters())
    assert {name for name, x in parameters.items() if x.requires_grad} == set(adapter)
    assert list(tuned.X) == [name for name in parameters if name not in adapter]
    assert len(tuned.X) == len(list(loaded(arch).model.parameters()))


@pytest.mark.parametrize("adapter", [LORA, PREFIX, PROMPT], ids=["lora", "prefix", "prompt"])
def test_the_two_sets_are_two_draws(adapter):
    tuned = two_level(adapter)
    sets = ValueSets(tuned.extras)
    for number in (0, 1, 0):
        sets.show(number)
        own = {name: x.detach() for name, x in sets.parameters.items()}
        torch.testing.assert_close(own, alone(adapter, number), rtol=0, atol=0)
    first, second = alone(adapter, 0), alone(adapter, 1)
    assert any(not torch.equal(x, second[name]) for name, x in first.items())


def test_two_sets_without_a_draw_are_equal():
    tuned = two_level(IA3)
    sets = ValueSets(tuned.extras)
    torch.testing.assert_close(dict(sets.values(1)), dict(sets.values(0)), rtol=0, atol=0)


def test_both_sets_and_which_one_is_shown_are_in_the_engines_state():
    tuned, other = two_level(LORA), two_level(LORA)
    engine, copy = (InPlace(each.X, each.model, each.extras) for each in (tuned, other))
    sets = ValueSets(engine.extras)
    sets.show(1)
    with torch.no_grad():
        next(iter(sets.parameters.values())).add_(1.0)
    copy.load_state(engine.state())
    assert ValueSets(copy.extras).shown == 1
    torch.testing.assert_close(dict(copy.tensors()), dict(engine.tensors()), rtol=0, atol=0)


def test_a_tuning_that_trains_weights_of_the_model_is_no_adapter():
    with pytest.raises(UserError, match=r"^tuning\.adapter: Full trains weights of the model"):
        two_level(FULL)


def test_a_new_head_is_refused():
    options = {"_target_": "lozo_bench.tuning.two_level.TwoLevel", "adapter": LORA}
    with pytest.raises(UserError, match=r"^tuning: TwoLevel is given; allowed with model\.kind"):
        build(options, "tuning").tune(classifier("opt"), Draws(0))


def test_of_several_tasks_the_untrained_adapter_changes_nothing():
    options = {"_target_": "lozo_bench.tuning.two_level.TwoLevel", "tasks": ["a", "b"]}
    tuned = build(options | {"adapter": LORA}, "tuning").tune(loaded("opt"), Draws(0))
    assert len(ValueSets(tuned.extras)) == 5
    with pytest.raises(UserError, match=r"^tuning\.adapter: Prefix is given; allowed with several"):
        build(options | {"adapter": PREFIX}, "tuning")
