"""Plain peft loads what is on, alone; what it has no format for is refused in one line."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from peft import PeftModel
from test_save import Tokenizer
from tiny_models import ALL, classifier, loaded, logits, rows
from transformers import AutoModelForCausalLM

from lozo_bench.errors import UserError
from lozo_bench.models.adapter import read_adapter
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.gated_lora import GatedLora
from lozo_bench.tuning.head import with_trainable_head
from lozo_bench.tuning.prune import prune, require_all_on
from lozo_bench.tuning.save import MOVED, save_tuned
from lozo_bench.tuning.shortcuts import Shortcuts
from lozo_bench.tuning.start import tune

TARGETS = r"\.(q_proj|v_proj|query|value|c_attn)$"
OPTIONS = {"r": 3, "alpha": 6.0, "targets": TARGETS}
WARNING = "ignore:`is_gradient_checkpointing`:FutureWarning"  # from peft


def trained(tuning, model):
    """Return a model before and after a tuning, with X moved."""
    before = dataclasses.replace(model, tokenizer=Tokenizer())
    this = with_trainable_head(tuning.tune(before, Draws(0)), before)
    with torch.no_grad():
        for key, x in this.X.items():
            x += 0.3 * Draws(1).normal("z", 0, {key: tuple(x.shape)}, dtype=x.dtype)[key]
    return before, this


def set_ranks(gates, *ranks):
    gates.set(torch.tensor([*ranks, *[0] * (len(gates.modules) - len(ranks))]))


@pytest.mark.filterwarnings(WARNING)
@pytest.mark.parametrize("arch", [*ALL, "classifier"])
def test_plain_peft_loads_what_is_on_with_the_ranks_that_are_on(arch, tmp_path):
    make = (lambda: classifier("roberta")) if arch == "classifier" else (lambda: loaded(arch))
    before, this = trained(GatedLora(**OPTIONS), make())
    set_ranks(this.gates, 0, 3) if arch == "gpt2" else set_ranks(this.gates, 0, 3, 2)
    wanted = logits(this, **rows())
    prune(before.model, this.gates)
    torch.testing.assert_close(logits(this, **rows()), wanted)
    assert save_tuned(before, tmp_path) == "adapter"
    # A classifier's head that is drawn anew is replaced by the saved one.
    plain = make().model
    read = PeftModel.from_pretrained(plain, tmp_path).eval()
    torch.testing.assert_close(read(**rows()).logits, wanted)
    layers = [x for x in read.modules() if hasattr(x, "lora_A")]
    assert [len(x.lora_A["default"].weight) for x in layers] == ([3] if arch == "gpt2" else [3, 2])


@pytest.mark.filterwarnings(WARNING)
def test_shortcuts_that_are_all_off_leave_a_plain_adapter(tmp_path):
    before, this = trained(Shortcuts(**OPTIONS), loaded("opt"))
    set_ranks(this.gates, 3)
    wanted = logits(this, **rows())
    prune(before.model, this.gates)
    assert torch.equal(logits(this, **rows()), wanted)
    save_tuned(before, tmp_path)
    read = PeftModel.from_pretrained(loaded("opt").model, tmp_path).eval()
    torch.testing.assert_close(read(**rows()).logits, wanted)


def test_what_plain_peft_has_no_format_for_is_refused():
    before, this = trained(Shortcuts(**OPTIONS), loaded("opt"))
    with pytest.raises(UserError, match=r"^--pruned: 7 shortcuts are on, such as .*\.s_res1, "):
        prune(before.model, this.gates)
    before, this = trained(Shortcuts(**OPTIONS, shortcut_norm="repeat"), loaded("roberta"))
    set_ranks(this.gates, 3)
    with pytest.raises(UserError, match=r"^--pruned: with tuning\.shortcut_norm=repeat"):
        prune(before.model, this.gates)
    before, this = trained(GatedLora(**OPTIONS), loaded("opt"))
    set_ranks(this.gates)
    with pytest.raises(UserError, match=r"^--pruned: no low-rank module is on"):
        prune(before.model, this.gates)
    with pytest.raises(UserError, match=r"^--pruned: this tuning has no modules that can be off"):
        prune(before.model, None)


def test_an_adapter_in_which_modules_would_come_back_on_is_refused():
    _, this = trained(GatedLora(**OPTIONS), loaded("opt"))
    require_all_on(this.gates, 8)
    set_ranks(this.gates, 3, 2)
    with pytest.raises(UserError, match=r"^step 8: 3 of 4 low-rank modules are off, .*--pruned"):
        require_all_on(this.gates, 8)


def test_shortcuts_are_saved_for_the_same_tuning(tmp_path):
    before, this = trained(Shortcuts(**OPTIONS), loaded("opt"))
    assert save_tuned(before, tmp_path) == "tensors"
    assert (tmp_path / MOVED).is_file()
    adapter = read_adapter(tmp_path, "opt")
    again = dataclasses.replace(loaded("opt"), adapter=adapter)
    _, later = tune(Shortcuts(**OPTIONS), again, Draws(5))
    assert torch.equal(logits(later, **rows()), logits(this, **rows()))


def test_shortcuts_beside_merged_weights_are_refused(tmp_path):
    before, _ = trained(Shortcuts(**OPTIONS), loaded("opt"))
    with pytest.raises(UserError, match=r"^tuning=shortcuts: they cannot be added to the weights"):
        save_tuned(dataclasses.replace(before, merged=True), tmp_path)


@pytest.mark.filterwarnings(WARNING)
def test_a_module_that_is_off_is_not_merged(tmp_path):
    before, this = trained(GatedLora(**OPTIONS), loaded("opt"))
    set_ranks(this.gates, 0, 3, 2)
    wanted = logits(this, **rows())
    prune(before.model, this.gates)
    assert save_tuned(dataclasses.replace(before, merged=True), tmp_path) == "weights"
    read = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    torch.testing.assert_close(read(**rows()).logits, wanted)
