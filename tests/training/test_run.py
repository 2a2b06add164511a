"""Whole runs on the embedded models: what they write, print, skip and refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import programs
import pytest
from omegaconf import OmegaConf

from lozo_bench.config.resolvers import register_resolver

SHARED = Path(__file__).resolve().parents[3] / "shared"
SHORT = ["steps=4", "eval_every=2", "log_every=1", "task.source.dev=20", "task.source.test=30"]
RESULT_KEYS = {
    "status", "digest", "config", "metrics", "best_step", "steps", "forwards", "backwards",
    "queries", "tokens", "backward_tokens", "backward_queries", "flops", "train_s",
    "bad_steps", "bad_candidates", "sittings", "weights", "engine", "parallel", "step_ms_median",
    "elapsed_s", "peak_memory_bytes", "peak_memory_of", "device", "versions", "git", "files",
    "checksum",
}  # fmt: skip


def lozo_train(folder, *arguments):
    """The command, in a process of its own, as a user runs it."""
    return programs.run(folder, *arguments)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """One multirun of two optimizers and two seeds, with offline wandb."""
    folder = tmp_path_factory.mktemp("sweep")
    done = lozo_train(folder, "-m", "optimizer=lozo,adamw", "seed=s0,s1", "sweep=first", *SHORT)
    assert done.returncode == 0, done.stderr
    return folder, done


def cells(folder):
    return sorted((folder / "outputs" / "first" / "reviews" / "tiny_opt").iterdir())


def test_each_cell_has_a_folder_named_after_its_choices(sweep):
    folder, _ = sweep
    names = [cell.name.rsplit("-", 1) for cell in cells(folder)]
    assert [name for name, _ in names] == [
        "adamw-r2-s0", "adamw-r2-s1", "lozo-r2-s0", "lozo-r2-s1",
    ]  # fmt: skip
    assert all(len(digest) == 8 for _, digest in names)


def test_a_cell_holds_config_metrics_result_log_and_its_own_wandb_run(sweep):
    for cell in cells(sweep[0]):
        state = {"checkpoints"} if cell.name.startswith("adamw") else set()
        assert {path.name for path in cell.iterdir()} == state | {
            ".hydra", "journal.bin", "metrics.jsonl", "result.json", "train.log", "wandb",
        }  # fmt: skip
        assert len(list(cell.glob("wandb/offline-run-*"))) == 1


def test_a_result_contains_the_config_and_the_metrics(sweep):
    cell = cells(sweep[0])[2]
    result = json.loads((cell / "result.json").read_text())
    assert set(result) == RESULT_KEYS
    assert result["status"] == "finished"
    assert cell.name.endswith(result["digest"])
    assert set(result["metrics"]) == {"zero_shot", "dev", "test"}
    assert 0 <= result["metrics"]["test"]["accuracy"] <= 1
    assert (result["steps"], result["forwards"], result["backwards"]) == (4, 8, 0)
    assert result["best_step"] in (2, 4)
    register_resolver()
    assert result["config"] == OmegaConf.to_container(
        OmegaConf.load(cell / ".hydra" / "config.yaml"), resolve=True
    )


def test_a_training_row_has_the_documented_fields(sweep):
    rows = [
        json.loads(line) for line in (cells(sweep[0])[2] / "metrics.jsonl").read_text().splitlines()
    ]
    training = [row for row in rows if "loss" in row]
    assert [row["step"] for row in training] == [1, 2, 3, 4]
    assert set(training[0]) == {
        "step", "loss", "projected_grad", "lr", "forward_passes", "examples", "bad_steps",
        "elapsed_s", "backward_passes", "queries", "tokens",
    }  # fmt: skip
    assert training[-1]["forward_passes"] == 8


def test_standard_output_contains_only_the_table(sweep):
    """Logs go to standard error; the last thing printed counts the cells."""
    folder, done = sweep
    lines = done.stdout.splitlines()
    assert sum("zero-shot" in line for line in lines) == 4
    assert not any("step 1" in line or "HYDRA" in line for line in lines)
    assert f"outputs: {cells(folder)[1]}" in lines
    assert lines[-1] == "4 cells: 4 finished"


def test_a_finished_cell_runs_again_only_with_rerun_all(sweep):
    folder, _ = sweep
    cell = cells(folder)[2]
    before = (cell / "metrics.jsonl").stat().st_mtime_ns
    again = ["optimizer=lozo", "seed=s0", "sweep=first", *SHORT]
    done = lozo_train(folder, *again)
    assert done.returncode == 0
    assert "already finished" in done.stderr
    assert (cell / "metrics.jsonl").stat().st_mtime_ns == before

    first = json.loads((cell / "result.json").read_text())
    done = lozo_train(folder, *again, "rerun=all", "tracking=files")
    assert done.returncode == 0
    assert (cell / "metrics.jsonl").stat().st_mtime_ns > before
    second = json.loads((cell / "result.json").read_text())
    assert second["metrics"] == first["metrics"]  # the same run, whenever it is run


def test_after_a_failed_cell_the_others_run_and_the_exit_code_is_1(tmp_path):
    done = lozo_train(tmp_path, "-m", "optimizer.eps=-1,1e-3", "tracking=files", *SHORT)
    assert done.returncode == 1
    assert "optimizer.eps: given -1; allowed: a number > 0" in done.stderr
    assert "Traceback" not in done.stderr
    (result,) = tmp_path.rglob("result.json")
    (failed,) = tmp_path.rglob("failed.json")
    assert result.parent != failed.parent
    assert "optimizer.eps: given -1" in (failed.parent / "train.log").read_text()


@pytest.mark.parametrize("model", ["tiny_opt", "tiny_roberta"])
@pytest.mark.parametrize("task", ["reviews", "entailment", "topics"])
def test_every_built_in_task_runs_on_both_embedded_models(tmp_path, model, task):
    done = lozo_train(
        tmp_path, f"model={model}", f"task={task}", "optimizer=lozo_m", "tracking=files", *SHORT
    )
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.rglob("result.json")
    assert json.loads(result.read_text())["metrics"]["test"]["loss"] > 0


@pytest.mark.parametrize(
    ("arguments", "zero_shot"),
    [
        ([], 0.65),
        (["model=tiny_roberta", "optimizer=adamw", "optimizer.lr=3e-4", "steps=200"], 0.7),
    ],
    ids=["the default: LOZO on tiny_opt", "AdamW on tiny_roberta"],
)
def test_an_embedded_model_gets_clearly_better_at_reviews(tmp_path, arguments, zero_shot):
    done = lozo_train(tmp_path, "tracking=files", *arguments)
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.rglob("result.json")
    metrics = json.loads(result.read_text())["metrics"]
    assert metrics["zero_shot"]["accuracy"] <= zero_shot
    assert metrics["test"]["accuracy"] >= 0.85


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared: real data and a real model")
def test_causal_sst2_runs_on_real_rows_with_a_real_model(tmp_path):
    done = lozo_train(
        tmp_path,
        "model=local",
        f"model.path={SHARED / 'models' / 'stories260k'}",
        "task=sst2",
        f"task.data_dir={SHARED / 'data' / 'sst2'}",
        "task.source.num_dev=20",
        "task.source.num_test=20",
        "steps=2",
        "tracking=files",
    )
    assert done.returncode == 0, done.stderr
    assert "1000 train, 20 dev, 20 test rows" in done.stderr


def test_a_damaged_model_is_a_one_line_error(tmp_path):
    from lozo_bench.config.paths import EMBEDDED

    shutil.copytree(EMBEDDED / "tiny_opt", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = lozo_train(tmp_path, "model=local", f"model.path={tmp_path / 'model'}", "tracking=files")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "model.path: cannot load" in done.stderr
