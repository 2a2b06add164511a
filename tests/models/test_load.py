from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError

from lozo_bench.config import Dtype, Kind, ModelConfig
from lozo_bench.errors import UserError
from lozo_bench.models.check import output_layer, word_embeddings
from lozo_bench.models.load import Loaded, load
from lozo_bench.models.locate import EMBEDDED

Make = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]
STORIES = ROOT.parent / "shared" / "models" / "stories260k"


def loaded(folder: Path, **config: object) -> Loaded:
    return load(ModelConfig(name="m", path=str(folder), **{"device": "cpu", **config}))  # type: ignore[arg-type]


def logits(it: Loaded, text: str) -> torch.Tensor:
    ids = torch.tensor([it.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        out: torch.Tensor = it.model(input_ids=ids).logits
    return out


def from_yaml(name: str) -> ModelConfig:
    """conf/model/NAME.yaml as a run gets it, on the CPU."""
    node = OmegaConf.load(ROOT / "conf" / "model" / f"{name}.yaml")
    merged = OmegaConf.merge(OmegaConf.structured(ModelConfig), node, {"device": "cpu"})
    config = OmegaConf.to_object(merged)
    assert isinstance(config, ModelConfig)
    return config


@pytest.mark.parametrize(
    ("arch", "kind"),
    [("opt", "causal"), ("gpt2", "causal"), ("llama", "causal"), ("roberta", "masked")],
)
def test_each_architecture_loads_ready_to_score(arch: str, kind: str, make: Make) -> None:
    it = loaded(make(arch))
    assert it.kind is Kind[kind]
    assert it.name == "m"
    assert it.device == torch.device("cpu")
    assert not it.model.training
    assert all(weight.requires_grad for weight in it.model.parameters())
    assert logits(it, "ab").isfinite().all()


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        (Dtype.fp32, torch.float32),
        (Dtype.bf16, torch.bfloat16),
        (Dtype.fp16, torch.float16),
    ],
)
def test_every_weight_has_the_dtype_asked_for(asked: Dtype, held: torch.dtype, make: Make) -> None:
    model = loaded(make("opt"), dtype=asked).model
    assert {weight.dtype for weight in model.parameters()} == {held}


def test_the_first_token_is_the_one_told(make: Make) -> None:
    assert loaded(make("opt"), bos_token="<s>").tokenizer("a")["input_ids"][0] == 0


@pytest.mark.parametrize("arch", ["opt", "gpt2", "llama", "roberta"])
def test_an_untied_head_is_an_equal_copy_that_moves_alone(arch: str, make: Make) -> None:
    folder = make(arch)
    tied, untied = loaded(folder), loaded(folder, untie_head=True)
    head, embeddings = output_layer(untied.model), word_embeddings(untied.model)
    assert head is not None
    assert torch.equal(head.weight, embeddings)
    assert torch.equal(logits(tied, "ab"), logits(untied, "ab"))
    extra = len(list(untied.model.parameters())) - len(list(tied.model.parameters()))
    assert extra == 1
    untied.model.tie_weights()
    with torch.no_grad():
        head.weight.zero_()
    assert embeddings.any()


def test_a_saved_untied_roberta_loads_with_its_bias(make: Make, tmp_path: Path) -> None:
    it = loaded(make("roberta"), untie_head=True)
    head = output_layer(it.model)
    assert head is not None
    with torch.no_grad():
        head.weight.mul_(2)
    it.model.save_pretrained(tmp_path / "saved")
    it.tokenizer.save_pretrained(tmp_path / "saved")
    again = loaded(tmp_path / "saved")
    assert torch.equal(logits(it, "ab"), logits(again, "ab"))
    assert again.model.lm_head.bias is again.model.lm_head.decoder.bias
    assert len(list(again.model.parameters())) == len(list(it.model.parameters()))


@pytest.mark.parametrize("dropped", ["lm_head.bias", "lm_head.decoder.bias"])
def test_either_name_of_the_roberta_bias_is_enough(dropped: str, make: Make) -> None:
    biases = {"lm_head.bias": torch.ones(261), "lm_head.decoder.bias": torch.full((261,), 2.0)}
    head = loaded(make("roberta", tie=False, add=biases, drop=(dropped,))).model.lm_head
    biases.pop(dropped)
    (kept,) = biases.values()
    assert torch.equal(head.decoder.bias, kept)
    assert head.decoder.bias is head.bias


def test_an_untied_roberta_with_neither_bias_fails(make: Make) -> None:
    folder = make("roberta", tie=False, drop=("lm_head.bias", "lm_head.decoder.bias"))
    with pytest.raises(UserError, match=r"lm_head\.bias, lm_head\.decoder\.bias were not in"):
        loaded(folder)


def test_an_untied_roberta_without_its_decoder_fails(make: Make) -> None:
    with pytest.raises(UserError, match=r"lm_head\.decoder\.weight were not in the checkpoint"):
        loaded(make("roberta", tie=False, drop=("lm_head.decoder.weight",)))


def test_wrong_shapes_fail_by_name(make: Make) -> None:
    with pytest.raises(UserError, match=r"fc1\.bias \(32,\) for \(64,\)"):
        loaded(make("opt", config={"ffn_dim": 64}))


@pytest.mark.parametrize(("arch", "wrong"), [("roberta", "causal"), ("opt", "masked")])
def test_a_kind_that_the_model_was_not_trained_as_is_refused(
    arch: str, wrong: str, make: Make
) -> None:
    with pytest.raises(UserError, match=rf"model\.kind: given '{wrong}'; allowed: .* config\.json"):
        loaded(make(arch), kind=Kind[wrong])


def test_a_model_type_without_such_a_head_is_refused(make: Make) -> None:
    folder = make("opt", config={"architectures": None}, tokenizer="roberta")
    with pytest.raises(UserError, match="Unrecognized configuration class"):
        loaded(folder, kind=Kind.masked)


def test_a_masked_model_without_a_mask_token_is_refused(make: Make) -> None:
    folder = make("roberta")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(UserError, match="no mask token"):
        loaded(folder)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(make: Make) -> None:
    folder = make("opt")
    vocab = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**vocab, "one-too-many": 261}))
    with pytest.raises(UserError, match="knows 262 tokens, the model has embeddings for 261"):
        loaded(folder)


@pytest.mark.parametrize(
    "content", [b"", b"x" * 100, b"version https://git-lfs.github.com/spec/v1"]
)
def test_a_corrupt_checkpoint_is_named_and_the_cause_kept(content: bytes, make: Make) -> None:
    folder = make("opt")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.path: cannot load .*opt0 \(Safetensor") as told:
        loaded(folder)
    assert isinstance(told.value.__cause__, SafetensorError)


def test_a_truncated_checkpoint_is_named(make: Make) -> None:
    file = make("opt") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="file not fully covered"):
        loaded(file.parent)


def test_a_folder_without_weights_is_named(make: Make) -> None:
    folder = make("opt")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no file named model\.safetensors"):
        loaded(folder)


def test_a_hub_out_of_reach_is_told_in_one_line_with_the_way_round() -> None:
    config = ModelConfig(name="x", path="nobody/no-such-model", kind=Kind.causal, device="cpu")
    with pytest.raises(UserError) as told:
        load(config)
    message = str(told.value)
    assert "\n" not in message
    assert "could not be had from the Hugging Face hub" in message
    assert "`hf download nobody/no-such-model --local-dir DIR`" in message
    assert "model.path=DIR" in message
    assert isinstance(told.value.__cause__, OSError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_device_that_is_not_there_is_refused(device: str, make: Make) -> None:
    with pytest.raises(UserError, match="this machine has 0 CUDA devices"):
        loaded(make("opt"), device=device)


@pytest.mark.parametrize("device", ["gpu", "meta", ""])
def test_an_unknown_device_is_refused(device: str, make: Make) -> None:
    with pytest.raises(UserError, match=r"model\.device: .*allowed: auto, cpu, cuda"):
        loaded(make("opt"), device=device)


def test_auto_takes_the_first_device_there_is(make: Make) -> None:
    best = "mps" if torch.backends.mps.is_available() else "cpu"
    expected = "cuda" if torch.cuda.is_available() else best
    it = loaded(make("opt"), device="auto")
    assert it.device.type == expected
    assert {weight.device.type for weight in it.model.parameters()} == {expected}


@pytest.mark.parametrize("device_map", ["cpu", "auto"])
def test_a_device_map_places_the_model(device_map: str, make: Make) -> None:
    pytest.importorskip("accelerate")
    it = loaded(make("opt"), device="auto", device_map=device_map)
    assert it.device == word_embeddings(it.model).device
    assert it.device.type != "meta"


def test_a_device_map_beside_a_device_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"model\.device_map: given 'auto' beside model\.device="):
        loaded(make("opt"), device_map="auto")


def test_an_unknown_device_map_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"model\.device_map: given 'evenly'; allowed: auto, bal"):
        loaded(make("opt"), device="auto", device_map="evenly")


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"{STORIES} is not here")
def test_a_really_trained_model_predicts_its_language() -> None:
    it = loaded(STORIES)
    assert it.kind is Kind.causal
    ids = torch.tensor([it.tokenizer("Once upon a time, there was a little girl")["input_ids"]])
    with torch.no_grad():
        loss = it.model(input_ids=ids, labels=ids).loss
    assert loss < 2.0  # a uniform guess over its 512 tokens costs 6.2


@pytest.mark.parametrize(
    "file", sorted((ROOT / "conf" / "model").glob("*.yaml")), ids=lambda f: f.stem
)
def test_every_model_yaml_fits_the_schema_and_states_its_kind(file: Path) -> None:
    node = OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(file))
    assert file.read_text().startswith(f"# lozo-train model={file.stem} ")
    assert node.name == file.stem
    if file.stem == "local":
        assert OmegaConf.is_missing(node, "path")
        node.path = "DIR"
    else:
        assert node.kind is not Kind.auto
    config = OmegaConf.to_object(node)
    assert isinstance(config, ModelConfig)


def test_the_yaml_of_every_model_in_the_issue_is_there() -> None:
    asked = (
        "roberta_large opt_125m opt_350m opt_1_3b opt_2_7b opt_6_7b opt_13b opt_30b opt_66b "
        "gpt2_large gpt2_xl llama2_7b local tiny_opt tiny_roberta"
    )
    assert {file.stem for file in (ROOT / "conf" / "model").glob("*.yaml")} >= set(asked.split())


@pytest.mark.parametrize("name", sorted(f.parent.name for f in EMBEDDED.glob("*/config.json")))
def test_every_embedded_model_loads_by_its_yaml(name: str) -> None:
    it = load(from_yaml(name))
    assert logits(it, "It was").isfinite().all()


@pytest.mark.hub
def test_the_real_roberta_head_starts_as_its_word_embeddings() -> None:
    """Spec lozo_mezo A13."""
    it = load(from_yaml("roberta_large"))
    head = output_layer(it.model)
    assert head is not None
    assert torch.equal(head.weight, word_embeddings(it.model))
    assert head.weight is not word_embeddings(it.model)
