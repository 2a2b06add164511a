"""The blocks of a model, recognised by the names of its parameters."""

from __future__ import annotations

import pytest

from lozo_bench.optimizers.blocks import block_of, blocks, layer_groups


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.decoder.embed_tokens.weight", "embeddings"),
        ("model.decoder.embed_positions.weight", "embeddings"),
        ("model.decoder.layers.11.final_layer_norm.bias", "model.decoder.layers.11"),
        ("model.decoder.layers.1.self_attn.q_proj.lora_A.default.weight", "model.decoder.layers.1"),
        ("model.decoder.final_layer_norm.weight", "final norm"),
        ("roberta.embeddings.LayerNorm.weight", "embeddings"),
        ("roberta.encoder.layer.3.output.LayerNorm.weight", "roberta.encoder.layer.3"),
        ("lm_head.layer_norm.weight", "head"),
        ("classifier.dense.weight", "head"),
        ("transformer.wte.weight", "embeddings"),
        ("transformer.h.0.ln_1.weight", "transformer.h.0"),
        ("transformer.ln_f.weight", "final norm"),
        ("model.norm.weight", "final norm"),
        ("soft_prompt.weight", "rest"),
    ],
)
def test_a_parameters_name_determines_its_block(name, block):
    assert block_of(name) == block


def test_blocks_are_in_the_models_order_and_layer_groups_are_some_of_them():
    names = ["embed.weight", "layers.0.a", "layers.0.b", "layers.1.a", "norm.weight", "extra"]
    assert blocks(names) == {
        "embeddings": ["embed.weight"],
        "layers.0": ["layers.0.a", "layers.0.b"],
        "layers.1": ["layers.1.a"],
        "final norm": ["norm.weight"],
        "rest": ["extra"],
    }
    assert list(layer_groups(names)) == ["embeddings", "layers.0", "layers.1"]
