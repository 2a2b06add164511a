"""Mixed precision equals torch.autocast around every call of the model."""

from __future__ import annotations

import inspect

import pytest
import torch

from lozo_bench.config.checks import check
from lozo_bench.config.schema import Config, Dtype, ModelConfig
from lozo_bench.errors import UserError
from lozo_bench.models.load import load

TEXT = torch.tensor([[5, 6, 7, 8]])


def tiny(name="tiny_opt", **options):
    return load(ModelConfig(name=name, path=f"embedded:{name}", device="cpu", **options)).model


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["tiny_opt", "tiny_roberta"])
def test_a_pass_equals_torch_autocast_and_weights_and_gradients_stay_float32(name, dtype):
    plain, cast = tiny(name), tiny(name, autocast=dtype)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    with torch.autocast("cpu", half):
        wanted = plain(input_ids=TEXT).logits
    logits = cast(input_ids=TEXT).logits
    assert logits.dtype is half
    assert torch.equal(logits, wanted)
    assert not torch.is_autocast_enabled("cpu")
    logits.float().logsumexp(-1).sum().backward()
    grads = [x.grad for x in cast.parameters() if x.grad is not None]
    assert grads
    assert {x.dtype for x in grads} == {torch.float32}


def test_weights_that_change_between_two_passes_are_cast_again():
    model = tiny(autocast="bf16")
    with torch.no_grad():
        before = model(input_ids=TEXT).logits
        for x in model.parameters():
            x.mul_(0.5)
        assert not torch.equal(model(input_ids=TEXT).logits, before)


def test_the_signature_of_forward_can_still_be_inspected():
    assert "use_cache" in inspect.signature(tiny(autocast="bf16").forward).parameters


@pytest.mark.parametrize(
    ("autocast", "dtype", "allowed"),
    [
        ("fp8", Dtype.fp32, "null, bf16 or fp16"),
        ("fp16", Dtype.bf16, "null, because model.dtype=bf16"),
    ],
)
def test_an_invalid_autocast_is_refused_in_one_line(autocast, dtype, allowed):
    model = ModelConfig(name="m", path="p", autocast=autocast, dtype=dtype)
    config = Config(model=model)
    config.task.name = "t"
    with pytest.raises(
        UserError, match=rf"^model\.autocast: given '{autocast}'; allowed: {allowed}"
    ):
        check(config)
