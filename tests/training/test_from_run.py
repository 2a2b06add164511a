"""A run starts from the tested step of another run, whose folder is its model or its adapter."""

from __future__ import annotations

import cells
import pytest

from lozo_bench.config.digest import digest
from lozo_bench.errors import UserError
from lozo_bench.runs.result_file import load_result, write_result
from lozo_bench.training.checks import typed
from lozo_bench.training.plan import plan_run
from lozo_bench.training.run import run

SHORT = ["steps=4", "eval_every=2", "task.source.train=16", "optimizer.lr=1e-4"]
EVALUATE = ["optimizer=zero_shot", "task.source.train=16"]


def made(folder, *overrides):
    folder.mkdir()
    return run(cells.config(*overrides), folder)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Return the folder of a run that trained all weights."""
    folder = tmp_path_factory.mktemp("runs") / "full"
    made(folder, *SHORT)
    return folder


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """Return the folder of a run that trained LoRA."""
    folder = tmp_path_factory.mktemp("runs") / "lora"
    made(folder, *SHORT, "tuning=lora", "optimizer.lr=1e-2")
    return folder


def test_a_run_starts_from_the_tested_weights_of_another_one(full, tmp_path):
    before = load_result(full)
    result = made(tmp_path / "new", *EVALUATE, f"model.path={full}")
    # Updates that were beside the weights are now in them.
    assert result["metrics"]["test"] == pytest.approx(before["metrics"]["test"], abs=1e-5)
    (model,) = full.glob("model-*")
    written = {file: file.stat().st_mtime_ns for file in model.iterdir()}
    made(tmp_path / "again", *SHORT, f"model.path={full}")
    assert {file: file.stat().st_mtime_ns for file in model.iterdir()} == written


def test_the_digest_depends_on_the_tested_weights_of_the_other_run(full, tmp_path):
    result = load_result(full)
    write_result(tmp_path, result)
    _, plain = typed(cells.config(f"model.path={tmp_path}"))
    before = digest(plain)
    write_result(tmp_path, result | {"weights": {"tested": "0" * 32}})
    assert digest(plain) != before


def test_an_adapter_is_continued_or_merged(lora, tmp_path):
    before = load_result(lora)["metrics"]["test"]
    merged = made(tmp_path / "merged", *EVALUATE, f"model.path={lora}")
    assert merged["metrics"]["test"] == pytest.approx(before, abs=1e-5)
    alone = made(tmp_path / "alone", *EVALUATE, f"model.adapter={lora}", "tuning=lora")
    assert alone["metrics"]["test"] == pytest.approx(before, abs=1e-5)


def test_weights_are_no_adapter(full, tmp_path):
    """Which the config says, so that no folder is made for the run."""
    config, _ = typed(cells.config(*EVALUATE, f"model.adapter={full}", "tuning=lora"))
    with pytest.raises(UserError, match=r"trained weights .* no adapter; what to do: model\.path="):
        plan_run(config)
    assert not list(full.glob("*adapter-*"))


def test_a_prefix_is_no_model(tmp_path):
    made(tmp_path / "prefix", *SHORT, "tuning=prefix", "model=tiny_roberta")
    given = [*EVALUATE, "model=tiny_roberta"]
    with pytest.raises(UserError, match=r"model\.path: .* a prefix.* model\.adapter="):
        made(tmp_path / "new", *given, f"model.path={tmp_path / 'prefix'}")
    adapted = [*given, f"model.adapter={tmp_path / 'prefix'}", "tuning=prefix"]
    result = made(tmp_path / "adapted", *adapted)
    before = load_result(tmp_path / "prefix")["metrics"]["test"]
    assert result["metrics"]["test"] == pytest.approx(before, abs=1e-5)
