"""What a search found is an adapter for peft, and no file of a search's folder is a pickle."""

from __future__ import annotations

import sys

import cells
import pytest
import torch
from omegaconf import OmegaConf
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, GPT2Config

from lozo_bench.config.paths import EMBEDDED
from lozo_bench.errors import Stopped
from lozo_bench.training import stored
from lozo_bench.training.replay import rebuild
from lozo_bench.training.run import run

SMALL = [
    "optimizer.intrinsic_dim=8", "optimizer.popsize=4", "task.source.train=8",
    "task.source.dev=8", "task.source.test=12",
]  # fmt: skip


@pytest.fixture
def gpt2(tmp_path):
    folder = tmp_path / "gpt2"
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / "tiny_opt")
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=3, n_head=4, n_positions=128,
        initializer_range=0.3, bos_token_id=0, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# peft asks transformers in a way that it will not have much longer.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", ["tiny_roberta", "tiny_opt", "gpt2"])
def test_plain_peft_loads_what_was_tested(tmp_path, monkeypatch, request, name):
    model = [f"model={name}"]
    path = EMBEDDED / name
    if name == "gpt2":
        path = request.getfixturevalue("gpt2")
        model = ["model=local", f"model.path={path}"]
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # a figure would take its time
    folder, out = tmp_path / "run", tmp_path / "out"
    (folder / ".hydra").mkdir(parents=True)
    config = cells.config(*model, "method=c_lora", *SMALL, "optimizer.budget=24", "eval_every=2")
    OmegaConf.save(config, folder / ".hydra" / "config.yaml", resolve=True)
    result = run(config, folder)
    rebuilt = rebuild(folder, stored.tested_step(folder))
    assert rebuilt.save(out) == "adapter"

    kind = AutoModelForMaskedLM if name == "tiny_roberta" else AutoModelForCausalLM
    base = kind.from_pretrained(path).eval()
    ids = torch.arange(5, 25).view(2, 10)
    with torch.no_grad(), rebuilt.built.chosen.engine.applied():
        ours, plain = rebuilt.built.loaded.model(ids).logits, base(ids).logits
        theirs = PeftModel.from_pretrained(base, out)(ids).logits
    difference = (theirs - ours).abs().max()
    assert difference < 1e-4
    assert difference < 0.01 * (plain - ours).abs().max()

    as_it_is = cells.config(*model, "optimizer=zero_shot", f"model.adapter={out}", *SMALL[2:])
    (tmp_path / "again").mkdir()
    found = run(as_it_is, tmp_path / "again")["metrics"]["test"]
    assert found["accuracy"] == result["metrics"]["test"]["accuracy"]
    assert found["loss"] == pytest.approx(result["metrics"]["test"]["loss"], abs=1e-5)


@pytest.mark.parametrize("mode", ["fused", "in_place"])
def test_a_saved_prompt_is_what_was_tested(tmp_path, monkeypatch, mode):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    folder, out = tmp_path / "run", tmp_path / "out"
    (folder / ".hydra").mkdir(parents=True)
    prompt = ["model=tiny_roberta", "tuning=deep_prompt", "tuning.layers=first", "tuning.tokens=4"]
    options = ["method=bbt", f"engine.mode={mode}", "optimizer.budget=8", "eval_every=2"]
    config = cells.config(*options, *prompt, *SMALL)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml", resolve=True)
    result = run(config, folder)
    assert rebuild(folder, stored.tested_step(folder)).save(out) == "tensors"
    again = cells.config(*prompt, "optimizer=zero_shot", f"model.adapter={out}", *SMALL[2:])
    (tmp_path / "again").mkdir()
    found = run(again, tmp_path / "again")["metrics"]["test"]["loss"]
    assert found == pytest.approx(result["metrics"]["test"]["loss"], abs=1e-5)


def is_pickle(path):
    """Return whether a file has a pickle's name or beginning; torch puts its own into zip files."""
    if path.suffix in (".pkl", ".pickle", ".pt", ".pth"):
        return True
    return path.read_bytes()[:2].startswith((b"\x80", b"PK"))


@pytest.mark.parametrize("method", ["c_lora", "f_lora"])
def test_no_file_of_a_search_is_a_pickle(tmp_path, method):
    config = cells.config(
        "model=tiny_roberta", f"method={method}", *SMALL, "optimizer.budget=24",
        "checkpoint.kind=full", "checkpoint.every=2", "eval_every=2",
    )  # fmt: skip

    def stop():
        if any(tmp_path.glob("checkpoints/*.json")):
            raise Stopped("SIGTERM")

    with pytest.raises(Stopped):
        run(config, tmp_path, stop)
    for finished in (False, True):
        if finished:
            run(config, tmp_path)
        assert (tmp_path / "result.json").exists() == finished
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {path.suffix for path in files} >= {".safetensors", ".bin", ".jsonl"}
        assert not [path for path in files if is_pickle(path)]
