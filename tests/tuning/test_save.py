"""A saved tuning can be loaded again and gives the same logits."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftConfig, PeftModel
from safetensors.torch import load_file
from test_every_tuning import made
from tiny_models import ALL, CAUSAL, at_real_tokens, classifier, loaded, logits, rows
from transformers import BertConfig, BertForSequenceClassification

from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.head import with_trainable_head
from lozo_bench.tuning.save import MOVED, save_tuned


class Tokenizer:
    """A tokenizer with a vocabulary that only makes the folder when it is saved."""

    all_special_ids = (0, 1, 2)

    def __len__(self):
        return 41

    def encode(self, text, add_special_tokens):
        return [7] * len(text.split())

    pad_token = "<pad>"

    def get_added_vocab(self):
        return {"<pad>": 1}

    def save_pretrained(self, out):
        out.mkdir(exist_ok=True)


def changed(name, arch, **changes):
    """Return a model before and after tuning; X differs from its initial values."""
    before = dataclasses.replace(loaded(arch), tokenizer=Tokenizer())
    this = made(name, **changes).tune(before, Draws(0))
    with torch.no_grad():
        for key, x in this.X.items():
            x += 0.1 * Draws(1).normal("z", 0, {key: tuple(x.shape)}, dtype=x.dtype)[key]
    return before, this


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # from peft
@pytest.mark.parametrize("arch", ALL)
@pytest.mark.parametrize(
    ("name", "changes"), [("lora", {}), ("lora", {"train_head": True}), ("ia3", {})]
)
def test_adapters_can_be_loaded_by_peft(name, changes, arch, tmp_path):
    before, this = changed(name, arch, **changes)
    assert save_tuned(before, tmp_path) == "adapter"
    read = PeftModel.from_pretrained(loaded(arch).model, tmp_path).eval()
    torch.testing.assert_close(read(**rows()).logits, logits(this, **rows()))
    assert not torch.allclose(loaded(arch).model(**rows()).logits, logits(this, **rows()))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # from peft
def test_an_adapter_names_its_model_so_that_peft_finds_both(tmp_path):
    loaded("opt").model.save_pretrained(tmp_path / "base")
    before, this = changed("lora", "opt")
    before.model.config._name_or_path = str(tmp_path / "base")
    save_tuned(before, tmp_path / "adapter")
    read = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float64)
    torch.testing.assert_close(read.eval()(**rows()).logits, logits(this, **rows()))


def test_an_adapter_of_a_masked_model_names_the_models_class(tmp_path):
    save_tuned(changed("lora", "roberta")[0], tmp_path)
    read = PeftConfig.from_pretrained(tmp_path).auto_mapping
    library = "transformers.models.roberta.modeling_roberta"
    assert read == {"base_model_class": "RobertaForMaskedLM", "parent_library": library}


@pytest.mark.parametrize("name", ["prefix", "prompt", "deep_prompt"])
def test_prefixes_and_prompts_can_be_loaded_after_the_same_tuning(name, tmp_path):
    before, this = changed(name, "opt")
    assert save_tuned(before, tmp_path) == ("tensors" if name == "deep_prompt" else "adapter")
    again = made(name).tune(loaded("opt"), Draws(5))
    found = again.model.load_state_dict(load_file(tmp_path / MOVED), strict=False)
    assert not found.unexpected_keys
    assert torch.equal(logits(again, **rows()), logits(this, **rows()))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*past_key_values.*")
@pytest.mark.parametrize(
    ("name", "arch"), [("prompt", arch) for arch in ALL] + [("prefix", arch) for arch in CAUSAL]
)
def test_prefixes_and_prompts_give_the_same_logits_with_plain_peft(name, arch, tmp_path):
    before, this = changed(name, arch)
    assert save_tuned(before, tmp_path) == "adapter"
    base = loaded(arch).model
    if (tmp_path / "base").exists():  # learned positions, which peft counts from the prefix on
        base = type(base).from_pretrained(tmp_path / "base", dtype=torch.float64)
    read = PeftModel.from_pretrained(base, tmp_path).eval()
    ours, theirs = (at_real_tokens(m(**rows()).logits, rows()) for m in (this.model, read))
    # Rotary positions are computed in float32, and the model turns keys by other angles.
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["full", "bitfit", "head"])
def test_the_models_own_weights_can_be_loaded_by_transformers(name, tmp_path):
    before, this = changed(name, "opt")
    assert save_tuned(before, tmp_path) == "weights"
    read = type(before.model).from_pretrained(tmp_path, dtype=torch.float64).eval()
    torch.testing.assert_close(read(**rows()).logits, logits(this, **rows()))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # from peft
def test_a_new_pooler_is_saved_with_the_adapter_without_the_rest_of_the_backbone(tmp_path):
    def bert():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sizes = {"vocab_size": 41, "hidden_size": 16, "num_hidden_layers": 1}
            sizes |= {"num_attention_heads": 2, "intermediate_size": 32}
            return BertForSequenceClassification(BertConfig(**sizes)).double().eval()

    model = bert()
    head = tuple(model.bert.pooler.parameters())
    before = dataclasses.replace(classifier("roberta"), model=model, new_head=head)
    before = dataclasses.replace(before, tokenizer=Tokenizer())
    this = with_trainable_head(made("lora").tune(before, Draws(0)), before)
    with torch.no_grad():
        for x in this.X.values():
            x += 0.1
    wanted = logits(this, **rows())
    assert save_tuned(before, tmp_path) == "adapter"
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["bert.pooler", "classifier"]
    read = PeftModel.from_pretrained(bert(), tmp_path).eval()
    torch.testing.assert_close(read(**rows()).logits, wanted)
