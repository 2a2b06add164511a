"""Models without weights: their shapes are those that are published."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.config.schema import Dtype, Kind, ModelConfig
from lozo_bench.errors import UserError
from lozo_bench.models.meta import load_without_weights


def load(path, kind=Kind.causal, **values):
    return load_without_weights(ModelConfig(name="m", path=path, kind=kind, **values))


def parameters(loaded):
    return sum(x.numel() for x in loaded.model.parameters())


def of_opt(layers, width):
    """Four projections and two feed-forward matrices of 4 widths a layer, with biases and norms."""
    layer = 4 * (width**2 + width) + 2 * 4 * width**2 + 5 * width + 2 * 2 * width
    return layers * layer + (50272 + 2050) * width + 2 * width


@pytest.mark.parametrize(
    ("path", "layers", "width", "count"),
    [
        ("facebook/opt-125m", 12, 768, 125_239_296),
        ("facebook/opt-13b", 40, 5120, 12_853_473_280),
        ("facebook/opt-66b", 64, 9216, 65_719_701_504),
    ],
)
def test_an_opt_model_has_as_many_parameters_as_published(path, layers, width, count):
    assert parameters(load(path)) == count == of_opt(layers, width)


@pytest.mark.parametrize(
    ("path", "kind", "count"),
    [
        ("FacebookAI/roberta-large", Kind.masked, 355_412_057),
        ("meta-llama/Llama-2-7b-hf", Kind.causal, 6_738_415_616),
        ("openai-community/gpt2-xl", Kind.causal, 1_557_611_200),
    ],
)
def test_other_known_models_have_as_many_parameters_as_published(path, kind, count):
    assert parameters(load(path, kind)) == count


def test_no_tensor_has_memory_and_each_has_the_dtype_that_is_asked_for():
    loaded = load("facebook/opt-125m", dtype=Dtype.bf16)
    assert {(x.device.type, x.dtype) for x in loaded.model.parameters()} == {
        ("meta", torch.bfloat16)
    }
    assert loaded.tokenizer is None


def test_an_untied_head_is_a_matrix_of_its_own():
    tied, untied = (load("facebook/opt-125m", untie_head=untie) for untie in (False, True))
    assert parameters(untied) - parameters(tied) == 50272 * 768


def test_an_embedded_model_has_its_tokenizer():
    assert load("embedded:tiny_opt", Kind.auto).tokenizer is not None


def test_a_model_whose_shapes_are_not_known_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"shapes of facebook/opt-14b .* config\.json.*opt-13b"):
        load("facebook/opt-14b")
