"""Loading a model: what is loaded, what is checked, and the errors for bad files and options."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, DebertaV2Config, DebertaV2ForMaskedLM

from lozo_bench.config.paths import EMBEDDED
from lozo_bench.config.schema import Dtype, Kind, ModelConfig
from lozo_bench.errors import UserError
from lozo_bench.models import load as load_module
from lozo_bench.models.check import output_layer, word_embeddings
from lozo_bench.models.load import Loaded, load

Make = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]
STORIES = ROOT.parent / "shared" / "models" / "stories260k"


def loaded(folder: Path, **config: object) -> Loaded:
    return load(ModelConfig(name="m", path=str(folder), **{"device": "cpu", **config}))  # type: ignore[arg-type]


def logits(result: Loaded, text: str) -> torch.Tensor:
    ids = torch.tensor([result.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        out: torch.Tensor = result.model(input_ids=ids).logits
    return out


def from_yaml(name: str) -> ModelConfig:
    """Return the config that a run gets from conf/model/NAME.yaml, with device=cpu."""
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
    result = loaded(make(arch))
    assert result.kind is Kind[kind]
    assert result.name == "m"
    assert result.device == torch.device("cpu")
    assert not result.model.training
    assert all(weight.requires_grad for weight in result.model.parameters())
    assert logits(result, "ab").isfinite().all()


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        (Dtype.fp32, torch.float32),
        (Dtype.bf16, torch.bfloat16),
        (Dtype.fp16, torch.float16),
    ],
)
def test_every_weight_has_the_configured_dtype(asked: Dtype, held: torch.dtype, make: Make) -> None:
    model = loaded(make("opt"), dtype=asked).model
    assert {weight.dtype for weight in model.parameters()} == {held}


def test_sequences_begin_with_the_configured_token(make: Make) -> None:
    assert loaded(make("opt"), bos_token="<s>").tokenizer("a")["input_ids"][0] == 0


@pytest.mark.parametrize("arch", ["opt", "gpt2", "llama", "roberta"])
def test_an_untied_head_is_an_equal_copy_that_changes_alone(arch: str, make: Make) -> None:
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
    result = loaded(make("roberta"), untie_head=True)
    head = output_layer(result.model)
    assert head is not None
    with torch.no_grad():
        head.weight.mul_(2)
    result.model.save_pretrained(tmp_path / "saved")
    result.tokenizer.save_pretrained(tmp_path / "saved")
    again = loaded(tmp_path / "saved")
    assert torch.equal(logits(result, "ab"), logits(again, "ab"))
    assert again.model.lm_head.bias is again.model.lm_head.decoder.bias
    assert len(list(again.model.parameters())) == len(list(result.model.parameters()))


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


def test_a_weight_of_wrong_shape_is_named(make: Make) -> None:
    with pytest.raises(UserError, match=r"fc1\.bias \(32,\) for \(64,\)"):
        loaded(make("opt", config={"ffn_dim": 64}))


@pytest.mark.parametrize(("arch", "wrong"), [("roberta", "causal"), ("opt", "masked")])
def test_a_kind_that_the_model_was_not_trained_as_is_refused(
    arch: str, wrong: str, make: Make
) -> None:
    with pytest.raises(UserError, match=rf"model\.kind: given '{wrong}'; allowed: .* config\.json"):
        loaded(make(arch), kind=Kind[wrong])


def test_a_model_type_that_has_no_head_of_that_kind_is_refused(make: Make) -> None:
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
    with pytest.raises(UserError, match="has 262 tokens, but the model has embeddings for 261"):
        loaded(folder)


@pytest.mark.parametrize("arch", ["opt", "roberta"])
def test_a_token_that_was_added_without_an_embedding_is_named_and_the_advice_helps(
    arch: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(arch)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(
        UserError, match=r"'\[PAD\]' \(261\) was added to the tokenizer alone"
    ) as error:
        loaded(folder)
    message = str(error.value)
    assert message.endswith("remove it from tokenizer.json and tokenizer_config.json, and set "
                            "pad_token to '</s>' there")  # fmt: skip
    (code,) = re.findall(r'`python -c "(.*)"`', message)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert word_embeddings(loaded(tmp_path / f"{folder.name}-resized").model).shape[0] == 262


@pytest.mark.parametrize(
    "content", [b"", b"x" * 100, b"version https://git-lfs.github.com/spec/v1"]
)
def test_a_corrupt_checkpoint_is_named_and_the_cause_is_kept(content: bytes, make: Make) -> None:
    folder = make("opt")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.path: cannot load .*opt0 \(Safetensor") as error:
        loaded(folder)
    assert isinstance(error.value.__cause__, SafetensorError)


def test_a_truncated_checkpoint_is_named(make: Make) -> None:
    file = make("opt") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="file not fully covered"):
        loaded(file.parent)


@pytest.mark.parametrize("method", ["gptq", "bitsandbytes", "awq", "fp8"])
def test_quantised_weights_are_refused_before_they_are_read(method: str, make: Make) -> None:
    folder = make("llama", config={"quantization_config": {"quant_method": method, "bits": 4}})
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=rf"its weights are quantised \({method}\), .* what to do:"):
        loaded(folder)


def test_a_head_that_multiplies_by_the_embeddings_is_tied_by_nature(make: Make) -> None:
    """DeBERTa's own masked head, which deberta-v3's checkpoints have (`legacy: false`)."""
    folder = make("roberta")
    config = DebertaV2Config(
        vocab_size=261,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        legacy=False,
    )
    with torch.random.fork_rng(devices=[]):
        DebertaV2ForMaskedLM(config).save_pretrained(folder)
    result = loaded(folder)
    assert output_layer(result.model) is None
    assert logits(result, "ab").shape[-1] == 261
    with pytest.raises(UserError, match=r"model\.untie_head: .* has no head to untie"):
        loaded(folder, untie_head=True)


def test_an_adapter_in_a_models_repository_is_refused_too(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AutoConfig.from_pretrained(make("opt"))
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *_, **__: config)
    monkeypatch.setattr(load_module, "find_adapter_config_file", lambda _: "adapter_config.json")
    with pytest.raises(UserError, match=r"_config\.json of me/merged .* model\.path=DIR; then"):
        load(ModelConfig(name="m", path="me/merged", device="cpu"))


def test_a_folder_without_weights_is_named(make: Make) -> None:
    folder = make("opt")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no file named model\.safetensors"):
        loaded(folder)


def test_a_hub_name_that_is_not_cached_gives_one_line_that_says_what_to_do() -> None:
    config = ModelConfig(name="x", path="nobody/no-such-model", kind=Kind.causal, device="cpu")
    with pytest.raises(UserError) as error:
        load(config)
    message = str(error.value)
    assert "\n" not in message
    assert "is not a folder on this machine, HF_HUB_OFFLINE is set, and the model is not" in message
    assert "`hf download nobody/no-such-model --local-dir DIR`" in message
    assert "model.path=DIR" in message
    assert isinstance(error.value.__cause__, OSError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_device_that_this_machine_lacks_is_refused(device: str, make: Make) -> None:
    with pytest.raises(UserError, match="this machine has 0 CUDA devices"):
        loaded(make("opt"), device=device)


@pytest.mark.parametrize("device", ["gpu", "meta", ""])
def test_an_unknown_device_is_refused(device: str, make: Make) -> None:
    with pytest.raises(UserError, match=r"model\.device: .*allowed: auto, cpu, cuda"):
        loaded(make("opt"), device=device)


def test_auto_chooses_the_first_available_device(make: Make) -> None:
    best = "mps" if torch.backends.mps.is_available() else "cpu"
    expected = "cuda" if torch.cuda.is_available() else best
    result = loaded(make("opt"), device="auto")
    assert result.device.type == expected
    assert {weight.device.type for weight in result.model.parameters()} == {expected}


@pytest.mark.parametrize("device_map", ["cpu", "auto"])
def test_a_device_map_places_the_model(device_map: str, make: Make) -> None:
    pytest.importorskip("accelerate")
    result = loaded(make("opt"), device="auto", device_map=device_map)
    assert result.device == word_embeddings(result.model).device
    assert result.device.type != "meta"


def test_a_device_map_together_with_a_device_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"model\.device_map: given 'auto' beside model\.device="):
        loaded(make("opt"), device_map="auto")


def test_an_unknown_device_map_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"model\.device_map: given 'evenly'; allowed: auto, bal"):
        loaded(make("opt"), device="auto", device_map="evenly")


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"{STORIES} does not exist")
def test_a_trained_model_predicts_its_language() -> None:
    result = loaded(STORIES)
    assert result.kind is Kind.causal
    ids = torch.tensor([result.tokenizer("Once upon a time, there was a little girl")["input_ids"]])
    with torch.no_grad():
        loss = result.model(input_ids=ids, labels=ids).loss
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


def test_there_is_a_yaml_file_for_every_supported_model() -> None:
    expected = (
        "roberta_large opt_125m opt_350m opt_1_3b opt_2_7b opt_6_7b opt_13b opt_30b opt_66b "
        "gpt2_large gpt2_xl llama2_7b local tiny_opt tiny_roberta"
    )
    assert {file.stem for file in (ROOT / "conf" / "model").glob("*.yaml")} >= set(expected.split())


@pytest.mark.parametrize("name", sorted(f.parent.name for f in EMBEDDED.glob("*/config.json")))
def test_every_embedded_model_loads_by_its_yaml(name: str) -> None:
    result = load(from_yaml(name))
    assert logits(result, "It was").isfinite().all()


@pytest.mark.hub
def test_the_real_roberta_head_starts_as_its_word_embeddings() -> None:
    """As in MeZO's code, the untied lm_head.decoder.weight starts as a copy of the embeddings."""
    result = load(from_yaml("roberta_large"))
    head = output_layer(result.model)
    assert head is not None
    assert torch.equal(head.weight, word_embeddings(result.model))
    assert head.weight is not word_embeddings(result.model)
