"""Any step of a run is made again from its log, bit for bit."""

from __future__ import annotations

import json
import shutil

import cells
import pytest
import torch
from methods import ZEROTH_ORDER
from omegaconf import OmegaConf
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lozo_bench.engine.tensors import fingerprint
from lozo_bench.engine.terms import with_prefix
from lozo_bench.errors import UserError
from lozo_bench.runs.blocks import pack, read_header
from lozo_bench.runs.checkpoints import Checkpoints
from lozo_bench.runs.journal import read
from lozo_bench.training import stored
from lozo_bench.training.replay import rebuild


def made(folder, *overrides):
    """A finished run with a full state every fifth step, in a folder as Hydra makes it."""
    options = ["checkpoint.kind=full", "checkpoint.keep=9", *overrides]
    assert cells.run(folder, *options) == [0], cells.log(folder)
    (folder / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(cells.result(folder)["config"]), folder / ".hydra/config.yaml")
    return folder


@pytest.fixture(scope="module")
def lozo(tmp_path_factory):
    return made(tmp_path_factory.mktemp("lozo"), "optimizer.nu=7")


@pytest.mark.parametrize("optimizer", ZEROTH_ORDER)
def test_the_log_alone_rebuilds_every_kept_state_bit_for_bit(tmp_path, optimizer):
    folder = made(tmp_path / "run", f"optimizer={optimizer}", "steps=12", "eval_every=4")
    states = Checkpoints(folder / "checkpoints", keep=9)
    kept = {step: states.newest(step) for step in (5, 10)}
    shutil.rmtree(folder / "checkpoints")
    for step, state in kept.items():
        assert state.step == step
        assert rebuild(folder, step).weights == fingerprint(with_prefix("engine", state.tensors))
    weights = cells.result(folder)["weights"]
    assert rebuild(folder, 12).weights == weights["last"]
    assert rebuild(folder, cells.result(folder)["best_step"]).weights == weights["tested"]


def test_a_state_and_the_log_after_it_rebuild_the_same(lozo, tmp_path):
    """From the state of step 15 to step 18, which is in the middle of a period and of a block."""
    by_both = rebuild(lozo, 18).weights
    copy = tmp_path / "copy"
    shutil.copytree(lozo, copy)
    shutil.rmtree(copy / "checkpoints")
    assert rebuild(copy, 18).weights == by_both


def test_a_finished_run_is_rebuilt_though_a_later_command_failed_in_its_folder(lozo, tmp_path):
    """Hydra writes its config before anything is checked, and the digest leaves out some of it."""
    copy = tmp_path / "copy"
    shutil.copytree(lozo, copy)
    path = copy / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.parallel.timeout_s = -1
    OmegaConf.save(config, path)
    assert rebuild(copy, 24).weights == cells.result(lozo)["weights"]["last"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"config": {"no": 1}}'])
def test_a_damaged_result_is_one_line(lozo, tmp_path, text):
    copy = tmp_path / "copy"
    shutil.copytree(lozo, copy)
    (copy / "result.json").write_text(text)
    with pytest.raises(UserError, match=r"result\.json: (contains no config|the file is not)"):
        rebuild(copy, 24)


@pytest.mark.parametrize("former", [False, True])
@pytest.mark.parametrize("key", ["lr", "best_step", "weights"])
def test_a_changed_result_is_not_believed(lozo, tmp_path, key, former):
    """Results of former versions have no checksum, but a digest and the weights' fingerprints."""
    copy = tmp_path / "copy"
    shutil.copytree(lozo, copy)
    result = cells.result(copy)
    if former:
        del result["checksum"]
    result["config"]["optimizer"]["lr"] *= 2 if key == "lr" else 1
    if key == "best_step":
        result["best_step"] = 16 if result["best_step"] != 16 else 8
    elif key == "weights":
        result["weights"]["tested"] = "0" * 32
    (copy / "result.json").write_text(json.dumps(result))
    message = "its config is that of the run" if key == "lr" else "the rebuilt weights are"
    with pytest.raises(UserError, match=message if former else "the file is damaged"):
        rebuild(copy, stored.tested_step(copy))


def test_an_unfinished_run_is_rebuilt_though_a_refused_command_changed_hydras_config(
    lozo, tmp_path
):
    copy = tmp_path / "copy"
    shutil.copytree(lozo, copy)
    weights = cells.result(copy)["weights"]["last"]
    (copy / "result.json").unlink()
    path = copy / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.optimizer.lr = 0.5
    OmegaConf.save(config, path)
    assert rebuild(copy, 24).weights == weights
    # A former version's journal does not have the config, only its digest.
    journal = (copy / "journal.bin").read_bytes()
    header = read_header(journal)
    del header["config"]
    steps = journal[read(journal).ends[1][0] :]
    (copy / "journal.bin").write_bytes(pack(json.dumps(header).encode()) + steps)
    with pytest.raises(UserError, match=r"config\.yaml: its config is that of the run"):
        rebuild(copy, 24)
    config.optimizer.lr = cells.result(lozo)["config"]["optimizer"]["lr"]
    OmegaConf.save(config, path)
    assert rebuild(copy, 24).weights == weights


def test_half_precision_runs_are_rebuilt_too(tmp_path):
    small = ["steps=4", "eval_every=4", "batch_size=2", "task.source.dev=2", "task.source.test=2"]
    folder = made(tmp_path, "model.dtype=bf16", "optimizer.nu=2", "engine.max_rank=2", *small)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    assert rebuild(folder, 4).weights == cells.result(folder)["weights"]["last"]


def test_what_is_written_is_a_model_that_loads(lozo, tmp_path):
    rebuilt = rebuild(lozo, 24)
    assert rebuilt.save(tmp_path / "out") == "weights"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("the film was", return_tensors="pt").input_ids
    ours = rebuilt.built.loaded.model
    assert torch.equal(model(ids).logits, ours(ids).logits)
    before = rebuild(lozo, 0).built.loaded.model
    assert not torch.equal(model(ids).logits, before(ids).logits)


# peft asks transformers in a way that it will not have much longer.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_written_as_peft_loads_it(tmp_path):
    folder = made(tmp_path / "run", "optimizer=mezo_lora", "rank=r4")
    rebuilt = rebuild(folder, 24)
    assert rebuilt.save(tmp_path / "out") == "adapter"
    assert not (tmp_path / "out" / "model.safetensors").exists()
    base = rebuild(folder, 0).built.loaded.model
    ids = torch.arange(5, 25).view(2, 10)
    with torch.no_grad(), rebuilt.built.chosen.engine.applied():
        ours = rebuilt.built.loaded.model(ids).logits
        plain = base(ids).logits
        theirs = PeftModel.from_pretrained(base, tmp_path / "out")(ids).logits
    assert (plain - ours).abs().max() > 1e-4
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("step", "line"), [(25, "has the steps from 0 to 24"), (-1, "step -1")])
def test_a_step_that_is_not_there_is_one_line(lozo, step, line):
    with pytest.raises(UserError, match=line):
        rebuild(lozo, step)


def test_a_first_order_run_is_rebuilt_where_a_state_was_kept(tmp_path):
    folder = made(tmp_path, "optimizer=adamw")
    kept = Checkpoints(folder / "checkpoints", keep=9).newest(10)
    assert rebuild(folder, 10).weights == fingerprint(with_prefix("engine", kept.tensors))
    best = cells.result(folder)["best_step"]
    assert rebuild(folder, best).weights == cells.result(folder)["weights"]["tested"]
    with pytest.raises(UserError, match=r"at a step with a checkpoint; there are the steps 5, "):
        rebuild(folder, 12)


def test_another_run_goes_on_from_what_a_linear_probe_solved_for(tmp_path):
    """LP-MeZO: what the second run sees before its first step is what the first one ended with."""
    probed = made(tmp_path / "probe", "optimizer=linear_probe", "model=tiny_roberta")
    rebuild(probed, 1).save(tmp_path / "model")
    own = ["model=local", f"model.path={tmp_path / 'model'}", "optimizer=mezo"]
    then = cells.result(made(tmp_path / "then", *own))
    found = cells.result(probed)["metrics"]
    assert then["metrics"]["zero_shot"] == found["test"] != found["zero_shot"]


def test_the_weights_of_a_run_without_steps_are_those_of_its_model(tmp_path):
    folder = made(tmp_path / "run", "optimizer=zero_shot")
    assert rebuild(folder, 0).weights == cells.result(folder)["weights"]["tested"]
