"""(IA)^3 is compared with models whose weights are multiplied by the scales."""

from __future__ import annotations

import pytest
import torch
from test_every_tuning import tuned
from tiny_models import ALL, loaded, logits, rows

SCALES = {  # per layer: keys, values and feed-forward hidden units
    "opt": 16 + 16 + 32,
    "llama": 8 + 8 + 32,  # 2 key-value heads of width 4
    "gpt2": 48 + 64,  # queries are scaled too; the hidden layer has 4 times the width
    "roberta": 16 + 16 + 32,
}


@pytest.mark.parametrize("arch", ALL)
def test_there_is_a_scale_for_each_key_value_and_hidden_unit(arch):
    X = tuned("ia3", arch).X
    assert sum(x.numel() for x in X.values()) == 2 * SCALES[arch]
    assert all(bool((x == 1).all()) for x in X.values())


@pytest.mark.parametrize("arch", ALL)
def test_the_logits_are_those_of_scaled_weights(arch):
    this, plain = tuned("ia3", arch), loaded(arch).model
    for name, x in this.X.items():
        with torch.no_grad():
            x += torch.arange(x.numel()).view(x.shape) / x.numel()
        layer = plain.get_submodule(name.split(".ia3_l")[0])
        scale, weight = x.detach().flatten(), layer.weight.data
        flat = weight if arch == "gpt2" else weight.T  # [in, out]
        if x.shape[0] == 1:  # scales of inputs
            flat *= scale[:, None]
        else:
            flat *= scale
            if layer.bias is not None:
                layer.bias.data *= scale
    torch.testing.assert_close(logits(this, **rows()), plain(**rows()).logits)


def test_attention_output_layers_are_not_scaled():
    names = " ".join(tuned("ia3", "roberta").X)
    assert "layer.1.output.dense" in names
    assert "attention.output.dense" not in names
