"""A new classifier head: how its weights are initialised, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lozo_bench.config.schema import Dtype, Kind, ModelConfig
from lozo_bench.errors import UserError
from lozo_bench.models.load import Loaded, load
from lozo_bench.models.save import save_model
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.bitfit import BitFit
from lozo_bench.tuning.head import with_trainable_head

Make = Callable[..., Path]
HEADS = {
    "opt": {"score.weight": (3, 16)},
    "gpt2": {"score.weight": (3, 16)},
    "llama": {"score.weight": (3, 16)},
    "roberta": {
        "classifier.dense.weight": (16, 16),
        "classifier.dense.bias": (16,),
        "classifier.out_proj.weight": (3, 16),
        "classifier.out_proj.bias": (3,),
    },
}


# A masked model without a pooler, and the parts of a new head beside its last layer.
POOLED = {
    "Bert": ({}, {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}),
    "DebertaV2": ({}, {"pooler.dense.weight", "pooler.dense.bias"}),
    "DistilBert": (
        {"dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 32},
        {"pre_classifier.weight", "pre_classifier.bias"},
    ),
}


def masked(family: str, folder: Path) -> Path:
    """Write a masked model into the folder of a RoBERTa, whose tokenizer stays."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"vocab_size": 261, "intermediate_size": 32, "max_position_embeddings": 40}
    config = getattr(transformers, f"{family}Config")(**{**sizes, **POOLED[family][0]})
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, f"{family}ForMaskedLM")(config)
    model.save_pretrained(folder)
    return folder


def loaded(folder: Path, classes: int | None = 3, seed: int = 0, **config: object) -> Loaded:
    options = {"device": "cpu", "kind": Kind.classifier, **config}
    return load(ModelConfig(name="m", path=str(folder), **options), classes, seed)  # type: ignore[arg-type]


def weights(result: Loaded) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in result.model.named_parameters()}


def scores(result: Loaded, ids: list[int], mask: list[int] | None = None) -> torch.Tensor:
    attention_mask = torch.tensor([mask or [1] * len(ids)])
    with torch.no_grad():
        out: torch.Tensor = result.model(
            input_ids=torch.tensor([ids]), attention_mask=attention_mask
        ).logits
    return out


@pytest.mark.parametrize("arch", HEADS)
def test_a_head_is_the_only_weight_that_the_checkpoint_does_not_have(arch: str, make: Make) -> None:
    folder = make(arch)
    words = load(ModelConfig(name="m", path=str(folder), device="cpu"))
    result = loaded(folder)
    assert result.kind is Kind.classifier
    drawn = {id(x) for x in result.new_head}
    head = {name for name, x in result.model.named_parameters() if id(x) in drawn}
    assert {name: tuple(weights(result)[name].shape) for name in head} == HEADS[arch]
    for name, weight in weights(result).items():
        if name not in head:
            assert torch.equal(weight, weights(words)[name]), name
    assert not words.new_head
    assert scores(result, [5, 6, 7]).shape == (1, 3)


@pytest.mark.parametrize(("arch", "key"), [("opt", "init_std"), ("roberta", "initializer_range")])
def test_a_heads_matrices_are_normal_keyed_by_the_seed_and_its_biases_are_zero(
    arch: str, key: str, make: Make
) -> None:
    folder = make(arch, config={key: 0.125})
    for seed in (0, 7):
        result = loaded(folder, seed=seed)
        for name, shape in HEADS[arch].items():
            drawn = 0.125 * Draws(seed).normal("classifier_head", 0, {name: shape})[name]
            expected = drawn if len(shape) > 1 else torch.zeros(shape)
            assert torch.equal(weights(result)[name], expected)


def test_a_head_depends_neither_on_torchs_generator_nor_on_the_dtype(make: Make) -> None:
    folder = make("roberta")
    torch.manual_seed(1)
    first = weights(loaded(folder))
    torch.manual_seed(2)
    again = weights(loaded(folder))
    half = weights(loaded(folder, dtype=Dtype.bf16))
    for name in HEADS["roberta"]:
        assert torch.equal(first[name], again[name])
        assert torch.equal(first[name].bfloat16(), half[name])


@pytest.mark.parametrize("arch", HEADS)
def test_padding_does_not_change_the_scores(arch: str, make: Make) -> None:
    result = loaded(make(arch))
    pad = result.tokenizer.pad_token_id
    assert result.model.config.pad_token_id == pad
    unpadded = scores(result, [5, 6, 7])
    padded = scores(result, [5, 6, 7, pad, pad], [1, 1, 1, 0, 0])
    torch.testing.assert_close(padded, unpadded)
    assert not torch.allclose(unpadded, scores(result, [5, 6, 8]))  # the text matters


def test_a_trained_head_is_loaded_from_its_checkpoint(make: Make, tmp_path: Path) -> None:
    result = loaded(make("roberta"), seed=3)
    save_model(result, tmp_path / "trained")
    given = loaded(tmp_path / "trained", seed=4)
    detected = loaded(tmp_path / "trained", seed=4, kind=Kind.auto)
    assert detected.kind is Kind.classifier
    for again in (given, detected):
        for name in HEADS["roberta"]:
            assert torch.equal(weights(again)[name], weights(result)[name])


def test_a_trained_head_for_another_number_of_classes_is_refused(
    make: Make, tmp_path: Path
) -> None:
    save_model(loaded(make("opt")), tmp_path / "trained")
    with pytest.raises(UserError, match=r"score\.weight \(3, 16\) for \(2, 16\) .* another shape"):
        loaded(tmp_path / "trained", classes=2)


def test_a_checkpoint_with_half_a_head_is_refused(make: Make, tmp_path: Path) -> None:
    save_model(loaded(make("roberta")), tmp_path / "trained")
    file = tmp_path / "trained" / "model.safetensors"
    kept = {k: x for k, x in load_file(file).items() if k != "classifier.dense.weight"}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"classifier\.dense\.weight were not in the checkpoint"):
        loaded(tmp_path / "trained")


@pytest.mark.parametrize("family", POOLED)
def test_a_new_head_of_a_masked_model_brings_its_pooler_and_trains_it(
    family: str, make: Make, tmp_path: Path
) -> None:
    result = loaded(masked(family, make("roberta")), seed=4)
    parts = POOLED[family][1]
    pooler = max(parts)
    shape = tuple(weights(result)[pooler].shape)
    drawn = 0.02 * Draws(4).normal("classifier_head", 0, {pooler: shape})[pooler]
    assert torch.equal(weights(result)[pooler], drawn)
    tuned = with_trainable_head(BitFit().tune(result, Draws(0)), result)
    assert parts | {"classifier.weight", "classifier.bias"} <= set(tuned.X)

    save_model(result, tmp_path / "trained")  # with all parts of the head
    assert not loaded(tmp_path / "trained").new_head
    file = tmp_path / "trained" / "model.safetensors"
    save_file({k: x for k, x in load_file(file).items() if k not in parts}, file, {"format": "pt"})
    with pytest.raises(UserError, match=rf"{pooler} were not in the checkpoint and would be rand"):
        loaded(tmp_path / "trained")


@pytest.mark.parametrize("arch", HEADS)
def test_a_missing_layer_is_refused_with_a_new_head_too(arch: str, make: Make) -> None:
    layers = {"roberta": "layer.1.", "opt": "layers.1.", "gpt2": "h.1.", "llama": "layers.1."}
    with pytest.raises(UserError, match="were not in the checkpoint and would be random") as error:
        loaded(make(arch, drop=(layers[arch],)))
    assert not any(name in str(error.value) for name in HEADS[arch])


def test_a_classifier_without_classes_untie_head_and_a_wrong_kind_are_refused(
    make: Make, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^model\.kind: given 'classifier'; .* has no classes"):
        loaded(make("opt"), classes=None)
    with pytest.raises(UserError, match=r"^model\.untie_head: .* no head to untie; allowed: false"):
        loaded(make("opt"), untie_head=True)
    save_model(loaded(make("opt")), tmp_path / "trained")
    with pytest.raises(UserError, match=r"^model\.kind: given 'causal'; allowed: classifier, as"):
        loaded(tmp_path / "trained", kind=Kind.causal)
