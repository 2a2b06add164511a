"""Runs that start from an earlier adapter: it is continued, or merged, or refused."""

from __future__ import annotations

import dataclasses
import json
import re

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_every_tuning import made
from test_save import Tokenizer, changed
from tiny_models import ALL, classifier, loaded, logits, rows

from lozo_bench.errors import UserError
from lozo_bench.models.adapter import read_adapter
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.full import Full
from lozo_bench.tuning.save import save_tuned
from lozo_bench.tuning.start import tune

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
FILE = "adapter_model.safetensors"


def start(tuning, folder, before=None, base="opt"):
    """Tune a fresh model from the adapter in a folder."""
    before = before or loaded("opt")
    with_adapter = dataclasses.replace(
        before, adapter=read_adapter(folder, base), tokenizer=Tokenizer()
    )
    return tune(tuning, with_adapter, Draws(3))


@pytest.mark.parametrize("arch", ALL)
@pytest.mark.parametrize(
    ("name", "changes"), [("lora", {}), ("lora", {"train_head": True}), ("ia3", {})]
)
def test_our_adapters_are_continued_by_their_own_tuning_and_merged_before_others(
    name, changes, arch, tmp_path
):
    before, first = changed(name, arch, **changes)
    save_tuned(before, tmp_path)
    after, again = start(made(name, **changes), tmp_path, loaded(arch))
    assert not after.merged
    assert {k: x.tolist() for k, x in again.X.items()} == {
        k: x.tolist() for k, x in first.X.items()
    }
    assert torch.equal(logits(again, **rows()), logits(first, **rows()))

    after, whole = start(Full(), tmp_path, loaded(arch))
    assert after.merged
    assert list(whole.X) == [name for name, _ in loaded(arch).model.named_parameters()]
    torch.testing.assert_close(logits(whole, **rows()), logits(first, **rows()))


@pytest.mark.parametrize("name", ["prefix", "prompt", "deep_prompt"])
def test_a_prefix_or_prompt_is_continued_by_the_same_tuning_only(name, tmp_path):
    before, first = changed(name, "opt")
    save_tuned(before, tmp_path)
    _, again = start(made(name), tmp_path)
    assert torch.equal(logits(again, **rows()), logits(first, **rows()))
    for other in (made(name, tokens=3), Full()):
        with pytest.raises(UserError, match="the tensors that another tuning trained"):
            start(other, tmp_path)


def test_another_rank_merges_and_what_it_trains_is_saved_with_the_weights(tmp_path):
    before, first = changed("lora", "opt")
    save_tuned(before, tmp_path / "first")
    after, second = start(made("lora", r=3), tmp_path / "first")
    torch.testing.assert_close(logits(second, **rows()), logits(first, **rows()))
    with torch.no_grad():
        for x in second.X.values():
            x += 0.1
    wanted = logits(second, **rows())
    assert save_tuned(after, tmp_path / "second") == "weights"
    read = type(after.model).from_pretrained(tmp_path / "second", dtype=torch.float64).eval()
    torch.testing.assert_close(read(**rows()).logits, wanted)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], use_dora=True),
        peft.LoraConfig(
            r=2, target_modules=r".*\.fc[12]", use_rslora=True, modules_to_save=["score"]
        ),
        peft.LoHaConfig(r=2, target_modules=["fc1"], init_weights=False),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_adapters_that_peft_saved_are_merged(config, tmp_path):
    with torch.random.fork_rng(devices=[]):
        theirs = peft.get_peft_model(classifier("opt").model, config)
    with torch.no_grad():
        for name, x in theirs.named_parameters():
            if x.requires_grad:
                x += 0.1 * Draws(1).normal("z", 0, {name: tuple(x.shape)})[name]
    theirs.eval().save_pretrained(tmp_path)
    base = classifier("opt")
    base.model.score.load_state_dict(theirs.base_model.model.score.state_dict(), strict=False)
    state = torch.random.get_rng_state()
    _, tuned = start(Full(), tmp_path, base)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(logits(tuned, **rows()), theirs(**rows()).logits)


def saved(folder):
    """Save LoRA matrices of a model; return their tensors and config."""
    before, _ = changed("lora", "opt")
    save_tuned(before, folder)
    return load_file(folder / FILE), json.loads((folder / "adapter_config.json").read_text())


def without_first(tensors, config):
    tensors.pop(min(tensors))


def one_too_many(tensors, config):
    tensors[min(tensors).replace("layers.0", "layers.7")] = torch.zeros(8, 16)


def of_a_larger_model(tensors, config):
    tensors[min(tensors)] = torch.zeros(8, 32)


def other_layers(tensors, config):
    config["target_modules"] = ["no_such_layer"]


def unknown_kind(tensors, config):
    config["peft_type"] = "LORAX"


def a_prompt_of_peft(tensors, config):
    config.clear()
    config |= {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}


def head_without_values(tensors, config):
    config["modules_to_save"] = ["lm_head"]


def not_a_number(tensors, config):
    tensors[min(tensors)][0, 0] = torch.nan


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_first, "it lacks .*lora_A.default.weight, which would be random"),
        (one_too_many, "the model has no place for .*layers.7"),
        (of_a_larger_model, "size mismatch for .*32.*16"),
        (other_layers, "no_such_layer.*not found"),
        (unknown_kind, r"'LORAX'.*does not know \(did you mean 'LORA'\?\)"),
        (a_prompt_of_peft, "does not support prompt learning"),
        (head_without_values, r"it lacks lm_head\.weight"),
        (not_a_number, "contains NaN"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_in_one_line(damage, message, tuning, tmp_path):
    tensors, config = saved(tmp_path)
    damage(tensors, config)
    save_file(tensors, tmp_path / FILE)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as error:
        start(made(tuning), tmp_path)
    assert str(error.value).startswith("model.adapter: ")
    assert re.search(message, str(error.value)), error.value
    assert "what to do: " in str(error.value)


def test_a_shared_matrix_is_not_changed_through_one_of_its_names(tmp_path):
    before, _ = changed("lora", "opt", train_head=True)
    save_tuned(before, tmp_path)
    with pytest.raises(UserError, match=r"lm_head\.weight, which is tied to .*untie_head=true"):
        start(Full(), tmp_path, loaded("opt", tie=True))


def test_another_base_is_warned_of_and_damaged_files_are_named(tmp_path, caplog):
    _, config = saved(tmp_path)
    config["base_model_name_or_path"] = "facebook/opt-1.3b"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    read_adapter(tmp_path, "/models/opt-1.3b")
    assert not caplog.records
    read_adapter(tmp_path, "embedded:tiny_opt")
    assert "was made for facebook/opt-1.3b, but model.path is embedded:tiny_opt" in caplog.text
    (tmp_path / FILE).write_bytes(b"x" * 20)
    with pytest.raises(UserError, match=r"^model\.adapter: cannot read .* \(SafetensorError: "):
        read_adapter(tmp_path, "opt")
    (tmp_path / FILE).unlink()
    with pytest.raises(UserError, match=r"has no adapter_model\.safetensors or adapter_model\.bin"):
        read_adapter(tmp_path, "opt")
