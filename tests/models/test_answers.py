"""Restricting the logits of a model to some positions and words."""

from __future__ import annotations

import pytest
import torch
from models import model

from lozo_bench.errors import UserError
from lozo_bench.models.answers import backbone, only_columns, only_positions

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama", "roberta", "bert"])
def test_restricted_logits_equal_the_same_entries_of_all_logits(kind):
    net = model(kind)
    every = net(IDS).logits
    with only_positions(net, torch.tensor([4, 1])), only_columns(net, torch.tensor([30, 2, 11])):
        some = net(IDS).logits
    assert some.shape == (2, 1, 3)
    picked = every.flatten(0, 1)[[4, 1]][:, [30, 2, 11]]
    torch.testing.assert_close(some[:, 0], picked, rtol=1e-12, atol=1e-12)
    assert torch.equal(net(IDS).logits, every)


def test_the_output_embedding_is_restored_after_an_error():
    net = model("opt")
    weight, seen = net.lm_head.weight, []

    def interrupted():
        seen.append(len(net.lm_head.weight))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), only_columns(net, torch.tensor([1])):
        interrupted()
    assert seen == [1]
    assert net.lm_head.weight is weight


def test_the_error_for_a_head_with_a_separate_bias_names_the_option_to_change():
    net = model("opt")
    bias = torch.zeros(40, dtype=torch.float64)
    net.lm_head.register_forward_hook(lambda module, args, out: out + bias)
    with (
        pytest.raises(UserError, match=r"^engine\.answer_columns: OPTForCausalLM failed with 3 "),
        only_columns(net, torch.tensor([1, 2, 3])),
    ):
        net(IDS)


def test_an_error_of_the_gpu_is_not_blamed_on_the_reduced_head():
    net = model("opt")

    def fails(module, args, out):
        raise RuntimeError("CUDA error: device-side assert triggered")

    net.lm_head.register_forward_hook(fails)
    with (
        pytest.raises(RuntimeError, match=r"^CUDA error: device-side"),
        only_columns(net, torch.tensor([1, 2, 3])),
    ):
        net(IDS)


def test_a_model_that_calls_its_backbone_twice_is_refused():
    net = model("llama")
    with (
        pytest.raises(UserError, match=r"^engine\.answer_positions: .* 2 times in one forward"),
        only_positions(net, torch.tensor([0])),
    ):
        net(net(IDS).logits.argmax(-1))


def test_a_module_without_a_head_is_refused():
    with pytest.raises(UserError, match="Linear has no separate backbone and head"):
        backbone(torch.nn.Linear(2, 2))
