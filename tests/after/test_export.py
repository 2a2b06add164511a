"""``lozo-export``: the tested number of a run is that of what plain transformers and peft load."""

from __future__ import annotations

import json
import sys

import cells
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lozo_bench.after import export
from lozo_bench.config.paths import EMBEDDED
from lozo_bench.training.replay import rebuild

SMALL = ["steps=8", "eval_every=4", "batch_size=4", "task.source.dev=8", "task.source.test=8"]


@pytest.fixture(scope="module")
def lozo(tmp_path_factory):
    """A run whose update has rank 2 x 4 periods, less than the 64 of the smallest matrix."""
    folder = tmp_path_factory.mktemp("lozo")
    assert cells.run(folder, "optimizer.nu=2", "optimizer.lr=1e-3", *SMALL) == [0]
    return folder


@pytest.fixture
def exported(monkeypatch, capsys):
    """Run the command; return its exit code, standard output and error output."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lozo-export", *map(str, words)])
        try:
            export.main()
            code = 0
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def flushed(rebuilt):
    """Return the model with all of its updates in the weights."""
    rebuilt.built.chosen.engine.flush()
    return rebuilt.built.loaded.model


def logits(model, folder):
    words = AutoTokenizer.from_pretrained(folder)("the film was", return_tensors="pt").input_ids
    with torch.no_grad():
        return model.eval()(words).logits


def test_the_tested_step_is_written_into_the_runs_folder(lozo, exported):
    code, out, error = exported(lozo)
    result = cells.result(lozo)
    assert code == 0, error
    assert f"step {result['best_step']}: weights in {lozo / 'model'}" in out
    assert result["weights"]["tested"] in out
    assert (lozo / "model" / "config.json").is_file()
    code, _, error = exported(lozo)
    assert (code, error.count("\n")) == (2, 1)
    assert "exists and is not an empty folder; what to do: remove it" in error


# peft asks transformers in a way that it will not have much longer.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*tie:UserWarning")
@pytest.mark.parametrize(("rank", "error"), [((), 1e-5), (("--rank", 2), 0.95)])
def test_the_update_of_lozo_is_an_adapter(lozo, exported, tmp_path, rank, error):
    out = tmp_path / "lora"
    code, line, failure = exported(lozo, "--step", 8, "--as-lora", *rank, "--out", out)
    assert code == 0, failure
    assert f"LoRA of rank {rank[1] if rank else 8} in " in line
    assert float(line.split("it leaves out ")[1].split()[0]) < error
    if not rank:
        base = AutoModelForCausalLM.from_pretrained(EMBEDDED / "tiny_opt")
        read = PeftModel.from_pretrained(base, out)
        ours = flushed(rebuild(lozo, 8))
        plain = logits(AutoModelForCausalLM.from_pretrained(EMBEDDED / "tiny_opt"), out)
        assert (logits(ours, out) - plain).abs().max() > 1e-3
        torch.testing.assert_close(logits(read, out), logits(ours, out), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tuning", ["lora", "prefix"])
def test_an_adapter_is_merged_and_a_prefix_cannot_be(tuning, exported, tmp_path):
    run = tmp_path / "run"
    assert cells.run(run, "optimizer=mezo", f"tuning={tuning}", *SMALL) == [0]
    code, _, error = exported(run, "--merge")
    if tuning == "prefix":
        assert (code, error.count("\n")) == (2, 1)
        assert "--merge: a prefix, a prompt or shortcuts cannot be added" in error
        return
    assert code == 0, error
    merged = AutoModelForCausalLM.from_pretrained(run / "model")
    ours = flushed(rebuild(run, cells.result(run)["best_step"]))
    found = logits(merged, run / "model"), logits(ours, run / "model")
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--step", "3"], "not a run's folder"),
        (["--rank", "3"], "--rank: it is the rank of --as-lora"),
        (["--as-lora", "--merge"], "--as-lora: allowed: without --merge"),
    ],
)
def test_what_cannot_be_exported_is_one_line(words, line, exported, tmp_path):
    code, _, error = exported(tmp_path, *words)
    assert (code, error.count("\n")) == (2, 1)
    assert line in error
    if "--step" in words:
        assert json.dumps(str(tmp_path))[1:-1] in error
    assert "there is no such folder" in exported(tmp_path / "nope")[2]


def test_a_folder_of_runs_is_not_a_run(exported, tmp_path):
    (tmp_path / "sweep/one/.hydra").mkdir(parents=True)
    (tmp_path / "sweep/one/.hydra/config.yaml").write_text("{}")
    code, _, error = exported(tmp_path / "sweep")
    assert code == 2
    assert f"it contains 1 run; give the folder of one, such as {tmp_path}/sweep/one" in error
