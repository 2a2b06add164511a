"""Random models of four architectures in float64, in the form that `models.load` returns."""

from __future__ import annotations

import dataclasses

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    OPTForSequenceClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from lozo_bench.config.schema import Kind
from lozo_bench.models.load import Loaded

VOCAB, PAD = 41, 1
CAUSAL = ["opt", "llama", "gpt2"]
ALL = [*CAUSAL, "roberta"]


class Words:
    """The parts of a tokenizer that a tuning uses."""

    all_special_ids = (0, PAD, 2)

    def __len__(self):
        return VOCAB

    def encode(self, text, add_special_tokens):
        return [7] * len(text.split())


def loaded(arch, dtype=torch.float64, tie=False):
    """Make a model with two layers of width 16; Llama's four heads share two key-value heads."""
    common = {"vocab_size": VOCAB, "tie_word_embeddings": tie, "pad_token_id": PAD}
    common |= {"bos_token_id": 0, "eos_token_id": 2}
    layers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if arch == "opt":
            config = OPTConfig(**common, **layers, ffn_dim=32, word_embed_proj_dim=16)
            model = OPTForCausalLM(config)
        elif arch == "llama":
            config = LlamaConfig(**common, **layers, intermediate_size=32, num_key_value_heads=2)
            model = LlamaForCausalLM(config)
        elif arch == "gpt2":
            config = GPT2Config(**common, n_embd=16, n_layer=2, n_head=4, n_positions=64)
            model = GPT2LMHeadModel(config)
        else:
            config = RobertaConfig(
                **common, **layers, intermediate_size=32, max_position_embeddings=64
            )
            model = RobertaForMaskedLM(config)
            model.lm_head.decoder.bias = model.lm_head.bias  # as `models.load` does
        # The values are larger than usual initial ones, so that the logits clearly differ.
        for name, x in model.named_parameters():
            scale = x.ndim == 1 and name.endswith("weight")
            torch.nn.init.normal_(x, mean=float(scale), std=0.3)
    model.to(dtype).eval()
    kind = Kind.masked if arch == "roberta" else Kind.causal
    return Loaded(model, Words(), kind, torch.device("cpu"), arch)


def rows(lengths=(7, 4), left=False):
    """Make padded rows of words: ids and mask."""
    words = torch.arange(3, 3 + max(lengths) * len(lengths)).view(len(lengths), -1)
    mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths])
    if left:
        mask = mask.flip(1)
    return {"input_ids": words.where(mask == 1, PAD), "attention_mask": mask}


def logits(tuned, **inputs):
    return tuned.model(**inputs).logits


def at_real_tokens(x, inputs):
    """Return the logits of the real tokens only."""
    return x[:, -inputs["input_ids"].shape[1] :][inputs["attention_mask"] == 1]


def generated(tuned, inputs):
    """Generate 8 tokens greedily after each row; return them and all logits."""
    output = tuned.model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=8,
        pad_token_id=PAD,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    start = inputs["input_ids"].shape[1]
    return output.sequences[:, start:], torch.stack(output.logits, dim=1)


def classifier(arch):
    """Make the same model with a classifier head for two classes instead of a language head."""
    words = loaded(arch)
    kinds = {"opt": OPTForSequenceClassification, "roberta": RobertaForSequenceClassification}
    with torch.random.fork_rng(devices=[]):
        model = kinds[arch](words.model.config).to(torch.float64).eval()
    return dataclasses.replace(words, model=model, kind=Kind.classifier)
