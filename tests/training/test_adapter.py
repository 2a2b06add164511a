"""Runs that begin with an earlier adapter, and runs that would move nothing."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file

from lozo_bench.config.paths import EMBEDDED
from lozo_bench.training.replay import rebuild
from lozo_bench.tuning.base import Tuned
from lozo_bench.tuning.full import Full

SMALL = [
    "model=tiny_opt", "model.device=cpu", "task=reviews", "task.source.train=16",
    "task.source.dev=8", "task.source.test=16", "batch_size=4", "tracking=files",
]  # fmt: skip


@pytest.fixture
def finished(command, tmp_path):
    """Run the command to its end; return its result."""

    def run(folder, *arguments):
        code, _, err = command(*SMALL, f"hydra.run.dir={folder}", *arguments)
        assert code == 0, err
        return json.loads((tmp_path / folder / "result.json").read_text())

    return run


def test_a_run_begins_where_the_run_that_its_adapter_is_from_ended(finished, tmp_path):
    lora = ["tuning=lora", "optimizer=mezo", "optimizer.lr=1e-2", "steps=3", "eval_every=3"]
    first = finished("first", *lora, "task.select=last")
    rebuild(tmp_path / "first", 3).save(tmp_path / "saved")
    ended = first["metrics"]["test"]

    as_it_is = finished("0", "optimizer=zero_shot", "tuning=lora", "model.adapter=saved")
    assert as_it_is["metrics"]["test"] == ended
    assert as_it_is["weights"] == first["weights"]
    further = ["optimizer=mezo_lora", "optimizer.lr=1e-2", "steps=1", "eval_every=1"]
    merged = finished("1", "model.adapter=saved", *further)
    assert merged["metrics"]["zero_shot"] == pytest.approx(ended, abs=1e-6)
    # Its own adapter alone would be worth nothing: the weights beside it are saved nowhere else.
    assert rebuild(tmp_path / "1", 1).save(tmp_path / "whole") == "weights"
    q_proj = "model.decoder.layers.0.self_attn.q_proj.weight"
    before, after = (
        load_file(folder / "model.safetensors")[q_proj].flatten()
        for folder in (EMBEDDED / "tiny_opt", tmp_path / "whole")
    )
    adapter = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    A, B = (adapter[f"base_model.model.{q_proj[:-7]}.lora_{x}.weight"] for x in "AB")
    merged_there = before + 2 * (B @ A).flatten()  # alpha / r = 16 / 8
    assert 0 < (after - merged_there).norm() < 0.5 * (after - before).norm()


def test_searched_prompts_are_saved_and_evaluated_as_they_were(finished, tmp_path):
    tokens, few = "tuning.tokens=3", ["optimizer.intrinsic_dim=20", "optimizer.popsize=4"]
    search = ["method=bbt_v2", tokens, *few, "optimizer.budget=26", "task.select=last"]
    first = finished("first", *search)
    assert (first["steps"], first["forwards"]) == (6, 24)  # two turns of each of three layers
    assert rebuild(tmp_path / "first", 6).save(tmp_path / "saved") == "tensors"
    saved = load_file(tmp_path / "saved" / "moved.safetensors")
    assert len(saved) == 3
    assert all(x.any() for x in saved.values())
    again = ["optimizer=zero_shot", "tuning=deep_prompt", tokens, "model.adapter=saved"]
    as_it_is = finished("0", *again)["metrics"]["test"]
    assert as_it_is == pytest.approx(first["metrics"]["test"], abs=1e-6)


def test_an_adapter_left_beside_its_merged_model_is_refused(command, tmp_path):
    merged = tmp_path / "merged"
    shutil.copytree(EMBEDDED / "tiny_opt", merged)
    (merged / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    code, out, err = command(*SMALL, f"model.path={merged}")
    assert (code, out) == (2, "")
    assert f"{merged}/adapter_config.json is an adapter beside a whole model" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("optimizer", ["lozo", "adamw"])
def test_a_run_that_would_move_nothing_is_refused(command, monkeypatch, optimizer):
    def nothing(self, loaded, draws):
        return Tuned({}, loaded.model.requires_grad_(False), all_weights=False)

    monkeypatch.setattr(Full, "tune", nothing)
    code, _, err = command(*SMALL, f"optimizer={optimizer}", "steps=2", "eval_every=2")
    assert code == 2
    assert "tuning: Full selects no parameter of tiny_opt (OPTForCausalLM)" in err
    assert "Traceback" not in err
