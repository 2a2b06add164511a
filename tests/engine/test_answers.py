"""Heads that see less: what must fit, and what is put back."""

from __future__ import annotations

import pytest
import torch
from models import model

from lozo_bench.engine.answers import backbone, only_columns, only_positions
from lozo_bench.errors import UserError

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama", "roberta", "bert"])
def test_positions_and_columns_are_those_of_all_logits(kind):
    of = model(kind)
    every = of(IDS).logits
    with only_positions(of, torch.tensor([4, 1])), only_columns(of, torch.tensor([30, 2, 11])):
        some = of(IDS).logits
    assert some.shape == (2, 1, 3)
    picked = every.flatten(0, 1)[[4, 1]][:, [30, 2, 11]]
    torch.testing.assert_close(some[:, 0], picked, rtol=1e-12, atol=1e-12)
    assert torch.equal(of(IDS).logits, every)


def test_the_embedding_is_whole_again_after_an_error():
    of = model("opt")
    weight, seen = of.lm_head.weight, []

    def interrupted():
        seen.append(len(of.lm_head.weight))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), only_columns(of, torch.tensor([1])):
        interrupted()
    assert seen == [1]
    assert of.lm_head.weight is weight


def test_a_head_whose_bias_stands_elsewhere_is_told_which_switch_to_use():
    of = model("opt")
    bias = torch.zeros(40, dtype=torch.float64)
    of.lm_head.register_forward_hook(lambda module, args, out: out + bias)
    with (
        pytest.raises(UserError, match=r"^engine\.answer_columns: OPTForCausalLM failed with 3 "),
        only_columns(of, torch.tensor([1, 2, 3])),
    ):
        of(IDS)


def test_a_backbone_that_is_called_twice_is_refused():
    of = model("llama")
    with (
        pytest.raises(UserError, match=r"^engine\.answer_positions: .* 2 times in one forward"),
        only_positions(of, torch.tensor([0])),
    ):
        of(of(IDS).logits.argmax(-1))


def test_a_model_without_a_head_has_no_backbone():
    with pytest.raises(UserError, match="Linear has no backbone and head"):
        backbone(torch.nn.Linear(2, 2))
