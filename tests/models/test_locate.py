"""Finding a model's folder and its kind, without importing torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lozo_bench.config.schema import Kind, ModelConfig
from lozo_bench.errors import UserError
from lozo_bench.models import locate as locate_module
from lozo_bench.models.locate import kind_of, locate, locate_adapter, model_kind


def folder(parent: Path, name: str, **config: object) -> Path:
    made = parent / name
    made.mkdir(parents=True)
    (made / "config.json").write_text(json.dumps(config))
    return made


def test_planning_a_sweep_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, lozo_bench.models.locate; "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "[]"


def test_a_name_that_is_not_a_folder_is_a_hub_name() -> None:
    assert locate("facebook/opt-125m") == "facebook/opt-125m"


def test_a_folder_is_found_by_absolute_relative_and_home_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = folder(tmp_path, "m")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate(str(there)) == str(there)
    assert Path(locate("m")).resolve() == there
    assert Path(locate("./m")).resolve() == there
    assert locate("~/m") == str(there)


@pytest.mark.parametrize("path", ["/nowhere/model", "./nowhere", "../nowhere", "~/nowhere"])
def test_a_path_that_does_not_exist_is_never_taken_for_a_hub_name(path: str) -> None:
    with pytest.raises(UserError, match=r"model\.path: .*a folder; there is none"):
        locate(path)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(UserError, match="allowed: a folder"):
        locate(str(tmp_path / "model.safetensors"))


def test_a_folder_without_config_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json.*hf download NAME --local-dir DIR"):
        locate(str(tmp_path))


def test_embedded_models_are_found_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = folder(tmp_path, "tiny_opt")
    monkeypatch.setattr(locate_module, "EMBEDDED", tmp_path)
    assert locate("embedded:tiny_opt") == str(there)


@pytest.mark.parametrize("name", ["tiny_otp", "../tiny_opt", ""])
def test_an_unknown_embedded_model_gives_the_list_of_known_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path, "tiny_opt")
    folder(tmp_path, "tiny_roberta")
    monkeypatch.setattr(locate_module, "EMBEDDED", tmp_path)
    with pytest.raises(UserError, match="allowed: embedded:tiny_opt, embedded:tiny_roberta"):
        locate(f"embedded:{name}")


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("OPTForCausalLM", Kind.causal),
        ("LlamaForCausalLM", Kind.causal),
        ("GPT2LMHeadModel", Kind.causal),
        ("RobertaForMaskedLM", Kind.masked),
    ],
)
def test_the_kind_is_read_from_the_architecture(
    architecture: str, kind: Kind, tmp_path: Path
) -> None:
    there = folder(tmp_path, "m", architectures=[architecture])
    assert model_kind(ModelConfig(name="m", path=str(there))) is kind


def test_a_folder_called_opt_does_not_make_its_model_an_opt(tmp_path: Path) -> None:
    there = folder(tmp_path, "opt/causal", architectures=["RobertaForMaskedLM"])
    assert model_kind(ModelConfig(name="opt", path=str(there))) is Kind.masked


def test_a_configured_kind_is_used_without_reading_files() -> None:
    config = ModelConfig(name="m", path="/nowhere", kind=Kind.masked)
    assert model_kind(config) is Kind.masked


def test_the_kind_of_a_hub_model_is_not_guessed() -> None:
    assert model_kind(ModelConfig(name="opt", path="facebook/opt-125m")) is None


@pytest.mark.parametrize("content", [{}, {"architectures": None}, {"architectures": ["OPTModel"]}])
def test_a_config_without_a_known_architecture_asks_for_model_kind(
    content: dict[str, object], tmp_path: Path
) -> None:
    there = folder(tmp_path, "m", **content)
    with pytest.raises(UserError, match=r"set model\.kind=causal, model\.kind=masked, or"):
        model_kind(ModelConfig(name="m", path=str(there)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{bad", "not valid JSON"), ("[]", "not a JSON object"), ('{"architectures": 3}', "list")],
)
def test_a_damaged_config_is_named(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=rf"config\.json: .*{problem}"):
        model_kind(ModelConfig(name="m", path=str(tmp_path)))


def test_contradicting_architectures_give_no_kind() -> None:
    assert kind_of(["BertForMaskedLM", "BertLMHeadModel"]) is None


def test_an_adapter_beside_a_whole_model_must_be_asked_for(tmp_path: Path) -> None:
    merged = folder(tmp_path, "merged")
    other = tmp_path / "other"
    other.mkdir()
    for place in (merged, other):
        (place / "adapter_config.json").write_text("{}")
    for adapter in (None, str(other)):
        with pytest.raises(UserError) as error:
            locate_adapter(ModelConfig(name="m", path=str(merged), adapter=adapter))
        assert f"model.path: {merged}/adapter_config.json is an adapter" in str(error.value)
        assert f"else ask for it with model.adapter={merged}" in str(error.value)
    asked = ModelConfig(name="m", path=str(merged), adapter=f"{merged}/../merged")
    assert locate_adapter(asked) == Path(f"{merged}/../merged")


def test_a_folder_with_an_adapter_alone_is_no_model_and_a_model_is_no_adapter(
    tmp_path: Path,
) -> None:
    model = folder(tmp_path, "model")
    for file in ("adapter_config.json", "moved.safetensors"):
        adapter = tmp_path / file.partition(".")[0]
        adapter.mkdir()
        (adapter / file).touch()
        with pytest.raises(UserError, match=rf"trained on; and set model\.adapter={adapter} "):
            locate(str(adapter))
        config = ModelConfig(name="m", path=str(model), adapter=str(adapter))
        assert locate_adapter(config) == adapter
    for absent in (str(model), "no/such-folder"):
        with pytest.raises(UserError, match=r"model\.adapter: given .*adapter_model\.safetensors"):
            locate_adapter(ModelConfig(name="m", path=str(model), adapter=absent))


def test_a_run_that_is_not_finished_is_no_model(tmp_path):
    (tmp_path / ".hydra").mkdir()
    with pytest.raises(UserError, match="this run is not finished"):
        locate(str(tmp_path))
