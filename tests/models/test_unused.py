"""Weights that only the checkpoint has: harmless ones, and those that the model should have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from lozo_bench.config.schema import ModelConfig
from lozo_bench.errors import UserError
from lozo_bench.models.load import load
from lozo_bench.models.unused import unused_weights

Make = Callable[..., Path]
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
MASKED = ("ForMaskedLM", "Model", "ForSequenceClassification")
CAUSAL = ("ForCausalLM", "Model", "ForSequenceClassification")
GPT = ("LMHeadModel", "Model", "ForSequenceClassification")
# Each family with the ends of its class names and what its config needs beside SIZES.
FAMILIES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "Bert": (("ForPreTraining", *MASKED), {}),
    "Roberta": (MASKED, {}),
    "Data2VecText": (MASKED, {}),
    "DebertaV2": (MASKED, {"legacy": False}),
    "Electra": (("ForPreTraining", *MASKED), {"embedding_size": 16}),
    "DistilBert": (MASKED, {"dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 32}),
    "ModernBert": (MASKED, dict.fromkeys(("pad_token_id", "cls_token_id", "sep_token_id"), 1)),
    "OPT": (CAUSAL, {"ffn_dim": 32, "word_embed_proj_dim": 16}),
    "GPT2": (("DoubleHeadsModel", *GPT), {"n_embd": 16, "n_layer": 2, "n_head": 2}),
    "GPTNeoX": (CAUSAL, {}),
    "Bloom": (CAUSAL, {"n_layer": 2, "n_head": 2}),
    "Llama": (CAUSAL, {}),
    "Phi": (CAUSAL, {}),
    "Mixtral": (CAUSAL, {"num_key_value_heads": 2, "num_local_experts": 2}),
}


def config_of(family: str) -> Any:
    return getattr(transformers, f"{family}Config")(**{**SIZES, **FAMILIES[family][1]})


def model_of(family: str, end: str = "", config: Any = None) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        made: PreTrainedModel = getattr(transformers, family + (end or FAMILIES[family][0][-3]))(
            config or config_of(family)
        )
    return made


def read(family: str, end: str, folder: Path, **config: Any) -> tuple[PreTrainedModel, set[str]]:
    model, info = getattr(transformers, family + end).from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True, **config
    )
    return model, info["unexpected_keys"]


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_poolers_may_be_left_over_but_no_layer(family: str, tmp_path: Path) -> None:
    ends = FAMILIES[family][0]
    for end, other in ((ends[0], ends[-1]), (ends[-1], ends[-3]), ("Model", ends[-3])):
        model_of(family, end).save_pretrained(tmp_path / end)
        assert unused_weights(*read(family, other, tmp_path / end)) == []
    fewer = config_of(family)
    fewer.num_hidden_layers = 1
    assert unused_weights(*read(family, other, tmp_path / end, config=fewer))


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("GPT2", "h.0.attn.bias"),  # buffers of earlier versions
        ("GPT2", "transformer.h.1.attn.masked_bias"),
        ("GPTNeoX", "gpt_neox.layers.0.attention.bias"),
        ("Llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("Bert", "bert.embeddings.position_ids"),
        ("OPT", "decoder.version"),
        ("DebertaV2", "deberta.embeddings.word_embeddings._weight"),  # of deberta-v3
        ("DebertaV2", "mask_predictions.classifier.weight"),
        ("Llama", "v_head.summary.weight"),  # of reinforcement learning
        ("Llama", "model.vision_tower.layers.0.weight"),  # of a model that also sees images
    ],
)
def test_harmless_names_of_published_checkpoints_are_allowed(family: str, name: str) -> None:
    assert unused_weights(model_of(family), [name]) == []


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("Llama", "model.layers.1.self_attn.q_proj.bias"),  # the model was trained with biases
        ("Llama", "layers.0.self_attn.q_norm.weight"),  # a norm that Qwen3 has and Llama has not
        ("OPT", "model.decoder.project_in.weight"),
        ("Bert", "bert.encoder.layer.0.attention.self.distance_embedding.weight"),
        ("Mixtral", "model.layers.0.mlp.shared_expert.up_proj.weight"),
        ("Phi", "model.layers.24.mlp.fc1.weight"),
    ],
)
def test_weights_that_change_what_a_layer_computes_are_not(family: str, name: str) -> None:
    assert unused_weights(model_of(family), [name, "score.weight"]) == [name]


def test_a_config_with_fewer_layers_than_the_checkpoint_is_refused(make: Make) -> None:
    folder = make("opt")
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_hidden_layers": 1}))
    with pytest.raises(UserError) as error:
        load(ModelConfig(name="m", path=str(folder), device="cpu"))
    assert "model.decoder.layers.1.fc1.bias" in str(error.value)
    assert "has no place for them and would run without them; what to do: " in str(error.value)
