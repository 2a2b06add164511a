"""Every weight of a model must come from its checkpoint; anything else is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    CamembertConfig,
    CamembertForMaskedLM,
    Data2VecTextConfig,
    Data2VecTextForMaskedLM,
    MPNetConfig,
    MPNetForMaskedLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    XLNetConfig,
    XLNetLMHeadModel,
)

from lozo_bench.errors import UserError
from lozo_bench.models.check import (
    check_finite,
    check_loaded,
    max_row_tokens,
    output_layer,
    word_embeddings,
)

Make = Callable[..., Path]
VOCAB = 261
HEADS = {"roberta": "lm_head.decoder", "opt": "lm_head", "gpt2": "lm_head", "llama": "lm_head"}
NOTHING: dict[str, Any] = {
    "missing_keys": set(),
    "unexpected_keys": set(),
    "mismatched_keys": set(),
    "error_msgs": set(),
}
SECOND_LAYER = {"roberta": "layer.1.", "opt": "layers.1.", "gpt2": "h.1.", "llama": "layers.1."}


def check(folder: Path, arch: str) -> PreTrainedModel:
    model: PreTrainedModel
    cls: Any = AutoModelForMaskedLM if arch == "roberta" else AutoModelForCausalLM
    model, info = cls.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True
    )
    check_loaded(model, info)
    return model


@pytest.mark.parametrize("arch", HEADS)
@pytest.mark.parametrize("tie", [True, False])
def test_a_complete_checkpoint_passes_and_is_tied_as_its_config_says(
    arch: str, tie: bool, make: Make
) -> None:
    model = check(make(arch, tie=tie), arch)
    head = output_layer(model)
    assert head is not None
    assert (head.weight is word_embeddings(model)) is tie


@pytest.mark.parametrize("arch", HEADS)
def test_an_untied_checkpoint_without_its_head_fails(arch: str, make: Make) -> None:
    folder = make(arch, tie=False, drop=(f"{HEADS[arch]}.weight",))
    with pytest.raises(UserError, match=rf"{HEADS[arch]}\.weight were not in the checkpoint and"):
        check(folder, arch)


@pytest.mark.parametrize("arch", HEADS)
@pytest.mark.parametrize("tie", [True, False])
def test_a_missing_layer_fails(arch: str, tie: bool, make: Make) -> None:
    folder = make(arch, tie=tie, drop=(SECOND_LAYER[arch],))
    with pytest.raises(UserError, match=r"1\..* more were not in the checkpoint"):
        check(folder, arch)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize(
    ("drop", "named"),
    [
        ("lm_head.dense", r"lm_head\.dense\.bias, lm_head\.dense\.weight were"),
        ("lm_head.layer_norm", r"lm_head\.layer_norm\.bias, lm_head\.layer_norm\.weight were"),
        ("lm_head.", r"lm_head\.bias, lm_head\.decoder\.bias, .*more were"),
    ],
)
def test_a_roberta_head_with_parts_missing_fails(
    tie: bool, drop: str, named: str, make: Make
) -> None:
    with pytest.raises(UserError, match=named):
        check(make("roberta", tie=tie, drop=(drop,)), "roberta")


def test_a_tied_roberta_without_its_only_bias_fails(make: Make) -> None:
    with pytest.raises(UserError, match=r"lm_head\.bias, lm_head\.decoder\.bias were not in"):
        check(make("roberta", drop=("lm_head.bias",)), "roberta")


def test_a_tied_checkpoint_without_any_embeddings_fails(make: Make) -> None:
    with pytest.raises(UserError, match=r"word_embeddings\.weight were not in the checkpoint"):
        check(make("roberta", drop=("word_embeddings",)), "roberta")


def test_a_checkpoint_that_has_only_the_head_of_a_tied_pair_passes(make: Make) -> None:
    weight = torch.arange(VOCAB * 16.0).reshape(VOCAB, 16)
    folder = make("roberta", drop=("word_embeddings",), add={"lm_head.decoder.weight": weight})
    assert torch.equal(word_embeddings(check(folder, "roberta")), weight)


def test_two_different_matrices_under_a_tied_config_fail(make: Make) -> None:
    folder = make("roberta", add={"lm_head.decoder.weight": torch.ones(VOCAB, 16)})
    with pytest.raises(UserError, match="tie_word_embeddings to false"):
        check(folder, "roberta")


@pytest.mark.parametrize(
    ("arch", "key", "named"),
    [
        ("roberta", "intermediate_size", r"intermediate\.dense\.bias \(32,\) for \(64,\)"),
        ("llama", "intermediate_size", r"mlp\.down_proj\.weight \(16, 32\) for \(16, 64\)"),
        ("opt", "ffn_dim", r"fc1\.bias \(32,\) for \(64,\)"),
    ],
)
def test_wrong_shapes_are_named_with_both_shapes(
    arch: str, key: str, named: str, make: Make
) -> None:
    with pytest.raises(UserError, match=named):
        check(make(arch, config={key: 64}), arch)


def test_weights_of_another_head_are_ignored(make: Make) -> None:
    other = {"classifier.dense.weight": torch.ones(3, 3)}
    check(make("roberta", add=other), "roberta")


def test_errors_that_transformers_reports_are_passed_on(make: Make) -> None:
    model = AutoModelForCausalLM.from_pretrained(make("gpt2"))
    info = {**NOTHING, "error_msgs": ["size went wrong"]}
    with pytest.raises(UserError, match="did not load: size went wrong"):
        check_loaded(model, info)


def test_weights_left_off_the_devices_fail(make: Make) -> None:
    model = AutoModelForCausalLM.from_pretrained(make("gpt2"))
    torch.nn.Module.to(model, "meta")
    with pytest.raises(UserError, match=r"model\.device_map: .*left outside the devices"):
        check_loaded(model, NOTHING)


@pytest.mark.parametrize(
    ("value", "dtype", "found"),
    [(torch.nan, torch.float32, "NaN"), (-torch.inf, torch.bfloat16, "infinite numbers")],
)
def test_a_weight_that_is_no_number_is_named(
    value: float, dtype: torch.dtype, found: str, make: Make
) -> None:
    folder = make("llama")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    weights["model.layers.1.mlp.down_proj.weight"] = torch.full((16, 32), 3e38)  # the sum overflows
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    message = rf"^model\.path: model\.layers\.1\.mlp\.up_proj\.weight contains {found}; what to do"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    with pytest.raises(UserError, match=message):
        check_finite(model.named_parameters(), "model.path")


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
ROWS = {**SMALL, "intermediate_size": 32, "max_position_embeddings": 24}
IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
LAST_LENGTH: dict[str, tuple[Any, Any, int]] = {
    # Positions begin after the padding index.
    "roberta": (RobertaForMaskedLM, RobertaConfig(**ROWS, **IDS), 22),
    "roberta that pads with 0": (RobertaForMaskedLM, RobertaConfig(**ROWS, pad_token_id=0), 23),
    "camembert": (CamembertForMaskedLM, CamembertConfig(**ROWS, **IDS), 22),
    "data2vec-text": (Data2VecTextForMaskedLM, Data2VecTextConfig(**ROWS, **IDS), 22),
    "mpnet": (MPNetForMaskedLM, MPNetConfig(**ROWS, **IDS), 22),
    # The position embedding itself has as many more rows as it skips.
    "opt": (
        OPTForCausalLM,
        OPTConfig(**SMALL, **IDS, ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=24),
        24,
    ),
    "bert": (BertForMaskedLM, BertConfig(**ROWS, **IDS), 24),
    # The limit has another name in config.json.
    "mpt": (
        MptForCausalLM,
        MptConfig(vocab_size=40, d_model=16, n_heads=2, n_layers=1, max_seq_len=24),
        24,
    ),
}


@pytest.mark.parametrize("name", LAST_LENGTH)
def test_a_row_is_as_long_as_the_model_can_read_and_no_longer(name: str) -> None:
    cls, config, longest = LAST_LENGTH[name]
    with torch.random.fork_rng(devices=[]):
        model = cls(config).eval()
    assert max_row_tokens(model) == longest
    rows = torch.full((1, longest + 1), 5)
    with torch.no_grad():
        model(input_ids=rows[:, :-1], attention_mask=torch.ones_like(rows[:, :-1]))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=rows, attention_mask=torch.ones_like(rows))


def test_relative_positions_without_a_limit_have_none() -> None:
    config = XLNetConfig(vocab_size=40, d_model=16, n_layer=1, n_head=2, d_inner=32)
    assert max_row_tokens(XLNetLMHeadModel(config)) is None
