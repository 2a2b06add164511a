"""Activation checkpointing gives the same gradients, no dropout, and does recompute layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import OPTConfig, OPTForCausalLM, RobertaConfig, RobertaForMaskedLM

from lozo_bench.errors import UserError
from lozo_bench.models.checkpointing import checkpoint_layers

TEXT = torch.tensor([[5, 6, 7, 8, 1], [5, 9, 3, 2, 4]])
MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
SIZES = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}


def model(kind):
    """Make a model of three layers in float64, in eval mode, with high dropout rates."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return untrained(kind).double().eval()


def untrained(kind):
    if kind == "causal":
        options = {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5}
        return OPTForCausalLM(OPTConfig(**SIZES, **options, ffn_dim=32, word_embed_proj_dim=16))
    options = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}
    return RobertaForMaskedLM(RobertaConfig(**SIZES, **options, intermediate_size=32))


def layers(made):
    base = made.base_model
    return base.decoder.layers if hasattr(base, "decoder") else base.encoder.layer


def counted(made):
    """Return a list that counts, from now on, how often each layer's first linear map runs."""
    counts = [0] * len(layers(made))
    for i, layer in enumerate(layers(made)):
        linear = next(x for x in layer.modules() if isinstance(x, nn.Linear))

        def count(module, inputs, output, i=i):
            counts[i] += 1

        linear.register_forward_hook(count)
    return counts


def logits(made):
    return made(input_ids=TEXT, attention_mask=MASK, use_cache=False).logits


def gradients(made):
    loss = logits(made).logsumexp(-1).sum()
    loss.backward()
    return {name: x.grad.clone() for name, x in made.named_parameters() if x.grad is not None}


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_gradients_are_the_same_and_every_layer_ran_twice(kind):
    plain, saving = model(kind), model(kind)
    checkpoint_layers(saving)
    once, twice = counted(plain), counted(saving)
    wanted, found = gradients(plain), gradients(saving)
    assert (once, twice) == ([1] * 3, [2] * 3)
    assert len(found) > 30
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert not any(module.training for module in saving.modules())


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_less_is_kept_for_the_backward_pass(kind):
    kept = []
    for saves in (False, True):
        made, sizes = model(kind), []
        if saves:
            checkpoint_layers(made)
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: (sizes.append(x.numel()), x)[1], lambda x: x
        )
        with hooks:
            logits(made)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_a_pass_without_gradients_is_unchanged():
    made = model("causal")
    checkpoint_layers(made)
    counts = counted(made)
    with torch.no_grad():
        first = logits(made)
        assert torch.equal(logits(made), first)
    assert counts == [2] * 3


def test_a_model_whose_layers_do_not_support_it_is_refused():
    with pytest.raises(
        UserError, match=r"^model\.gradient_checkpointing: .* allowed: false, as Li"
    ):
        checkpoint_layers(nn.Linear(2, 2))
