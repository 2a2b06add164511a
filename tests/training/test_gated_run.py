"""What is tested and exported is the best step, with the modules that were on then."""

from __future__ import annotations

import os
import signal
import sys
import time

import cells
import pytest
import torch
from omegaconf import OmegaConf
from peft import PeftModel
from transformers import AutoModelForCausalLM

from lozo_bench.config.paths import EMBEDDED
from lozo_bench.errors import UserError
from lozo_bench.runs.checkpoints import Checkpoints
from lozo_bench.training.replay import rebuild
from lozo_bench.training.run import run

ROWS = ["task.source.train=32", "task.source.dev=20", "task.source.test=20"]
# Four steps an epoch: the first set is that of steps 1 to 4, and the second that of steps 5 to 8.
SETTINGS = [
    "tuning=gated_lora", "allocation=constant", "allocation.every=1.0", "allocation.budget=0.5",
    "optimizer=adamw", "optimizer.lr=0.03", "steps=8", "eval_every=4", "checkpoint.kind=full",
    "checkpoint.every=4", "checkpoint.keep=9",
]  # fmt: skip


def kill_after_step_4(folder):
    """Start the run in another process and kill it with SIGKILL once step 4 is saved."""
    process = cells.start(folder, [*SETTINGS, *ROWS])
    saved, deadline = Checkpoints(folder / "checkpoints", keep=9), time.monotonic() + 120
    while 4 not in saved.steps():
        assert process.is_alive(), cells.log(folder)
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (folder / "result.json").exists()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_best_step_is_tested_and_exported_with_the_set_of_its_time(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # a figure would take its time
    folder, out = tmp_path / "run", tmp_path / "out"
    (folder / ".hydra").mkdir(parents=True)
    config = cells.config(*SETTINGS, *ROWS)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml", resolve=True)
    kill_after_step_4(folder)
    result = run(config, folder)
    assert result["best_step"] == 4
    assert result["sittings"] == 2

    last, tested = rebuild(folder, 8), rebuild(folder, 4)
    assert tested.weights == result["weights"]["tested"]
    gates = tested.built.gates
    assert 0 < int(gates.on.sum()) < len(gates.modules)
    assert not torch.equal(gates.ranks, last.built.gates.ranks)

    ids = torch.arange(5, 25).view(2, 10)
    by_hand, plain = (AutoModelForCausalLM.from_pretrained(EMBEDDED / "tiny_opt") for _ in "12")
    with torch.no_grad():
        for i, module in enumerate(gates.modules):
            if gates.is_on(i):
                weight = by_hand.get_submodule(module.name).weight
                weight += module.scaling * module.B @ module.A
        wanted = tested.built.loaded.model(ids).logits
        torch.testing.assert_close(by_hand(ids).logits, wanted, rtol=0, atol=1e-4)
        assert (plain(ids).logits - wanted).abs().max() > 0.01
    with pytest.raises(UserError, match=r"^step 4: .* low-rank modules are off, .*--pruned"):
        tested.save(out)
    assert tested.save(out, pruned=True) == "adapter"
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(plain, out).eval()(ids).logits
    torch.testing.assert_close(theirs, wanted, rtol=0, atol=1e-5)

    as_it_is = cells.config("optimizer=zero_shot", f"model.adapter={out}", *ROWS)
    (tmp_path / "again").mkdir()
    found = run(as_it_is, tmp_path / "again")["metrics"]["test"]
    assert found["accuracy"] == result["metrics"]["test"]["accuracy"]
    assert found["loss"] == pytest.approx(result["metrics"]["test"]["loss"], abs=1e-5)
