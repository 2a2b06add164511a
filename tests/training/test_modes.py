"""Ways to evaluate, tunings and objectives, each from its config to its result."""

from __future__ import annotations

import cells
import pytest
import torch

from lozo_bench.config.task_list import with_task_lists
from lozo_bench.errors import UserError
from lozo_bench.runs.journal import read
from lozo_bench.training.run import run

METHODS = sorted((cells.CONF / "method").glob("*.yaml"))
FEW = ["task.source.train=12", "task.source.dev=6", "task.source.test=6"]


def result(folder, *overrides):
    folder.mkdir(exist_ok=True)
    return run(cells.config(*FEW, *overrides), folder)


def told(folder):
    """Return all recorded losses of a run."""
    steps = read((folder / "journal.bin").read_bytes()).steps
    return torch.cat([answer.flatten() for step in steps for answer in step]).double()


@pytest.mark.parametrize("method", ["zero_shot", "icl"])
def test_without_training_only_the_test_set_is_evaluated(tmp_path, method):
    found = result(tmp_path, f"optimizer={method}")
    assert set(found["metrics"]) == {"test"}
    assert (found["steps"], found["forwards"], found["flops"]) == (0, 0, 0)
    assert found["best_step"] == 0


def test_demonstrations_change_the_predictions(tmp_path):
    shown = result(tmp_path / "icl", "optimizer=icl", "evaluation.shots=2")
    bare = result(tmp_path / "zero_shot", "optimizer=zero_shot")
    assert shown["metrics"]["test"]["loss"] != bare["metrics"]["test"]["loss"]


def test_calibration_needs_a_text_and_changes_the_scores(tmp_path):
    with pytest.raises(UserError, match=r"task\.calibration: given None"):
        result(tmp_path / "none", "optimizer=zero_shot", "evaluation.calibrated=true")
    sfc = result(
        tmp_path / "sfc", "optimizer=zero_shot", "evaluation.calibrated=true",
        "task.calibration=' It was'",
    )  # fmt: skip
    bare = result(tmp_path / "zero_shot", "optimizer=zero_shot")
    assert sfc["metrics"]["test"]["loss"] != bare["metrics"]["test"]["loss"]


def test_masked_models_take_no_demonstrations_and_no_calibration(tmp_path):
    model = "model=tiny_roberta"
    with pytest.raises(UserError, match=r"demonstrations|shown"):
        result(tmp_path / "icl", model, "optimizer=icl")
    with pytest.raises(UserError, match=r"^evaluation\.calibrated: given true; allowed for causal"):
        result(tmp_path / "sfc", model, "optimizer=zero_shot", "evaluation.calibrated=true")


@pytest.mark.parametrize("model", ["tiny_opt", "tiny_roberta"])
def test_a_linear_probe_solves_for_the_output_layer_in_one_step(tmp_path, model):
    found = result(tmp_path, f"model={model}", "optimizer=linear_probe", "task.source.train=40")
    assert (found["steps"], found["forwards"], found["best_step"]) == (1, 1, 1)
    assert found["metrics"]["test"]["accuracy"] > found["metrics"]["zero_shot"]["accuracy"]


@pytest.mark.parametrize("tuning", ["lora", "prefix", "prompt", "ia3", "bitfit"])
def test_low_rank_steps_move_only_what_the_tuning_trains(tmp_path, tuning):
    """LOZO on adapters, prefixes and biases; the fused engine is for whole models."""
    found = result(
        tmp_path, f"tuning={tuning}", "optimizer=lozo", "optimizer.lr=0.1", "rank=r1", "steps=2"
    )
    assert found["engine"]["mode"] == "in_place"
    assert found["weights"]["last"] != result(tmp_path / "start", f"tuning={tuning}",
                                              "optimizer=lozo", "optimizer.lr=0",
                                              "rank=r1", "steps=2")["weights"]["last"]  # fmt: skip


def test_micro_batches_give_the_losses_of_the_whole_batch(tmp_path):
    whole = result(tmp_path / "whole", "optimizer=lozo", "steps=6")
    parts = result(tmp_path / "parts", "optimizer=lozo", "steps=6", "micro_batch_size=3")
    torch.testing.assert_close(
        told(tmp_path / "whole"), told(tmp_path / "parts"), rtol=0, atol=1e-5
    )
    for key in ("forwards", "queries", "tokens"):
        assert whole[key] == parts[key]


def test_text_losses_of_micro_batches_are_still_the_mean_over_the_batchs_tokens(tmp_path):
    text = [
        "task.train_as=language_model",
        'task.options=[" terrible and bad"," great"]',
        "steps=4",
    ]
    result(tmp_path / "whole", *text)
    result(tmp_path / "parts", *text, "micro_batch_size=1")
    torch.testing.assert_close(
        told(tmp_path / "whole"), told(tmp_path / "parts"), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_the_command_at_the_top_of_a_method_file_runs(tmp_path, path):
    first = path.read_text().splitlines()[1].removeprefix("# lozo-train ").partition(":")[0]
    found = run(cells.composed(*with_task_lists(first.split()), "scale=tiny"), tmp_path)
    assert found["metrics"]["test"]["loss"] != 0


def test_a_metric_can_be_optimized_without_a_gradient(tmp_path):
    found = result(tmp_path, "objective=metric", "optimizer.eps=0.1", "steps=4", "batch_size=8")
    losses = told(tmp_path).view(4, 2)
    accuracies = -(losses[:, 0] * 8)  # of eight rows
    torch.testing.assert_close(accuracies, accuracies.round(), rtol=0, atol=1e-5)
    assert found["forwards"] == 8


@pytest.mark.parametrize(
    "method",
    [["adamw"], ["linear_probe"], ["forward_grad"], ["mezo_scaled", "optimizer.norm=gradient"]],
)
def test_a_metric_has_no_gradient(tmp_path, method):
    optimizer, *options = method
    with pytest.raises(UserError, match=r"^objective: given 'metric'; allowed: loss"):
        result(tmp_path, "objective=metric", f"optimizer={optimizer}", *options)


def test_queries_tokens_and_operations_are_counted(tmp_path):
    zeroth = result(tmp_path / "lozo", "optimizer=lozo", "steps=3", "batch_size=4")
    first = result(tmp_path / "adamw", "optimizer=adamw", "steps=3", "batch_size=4")
    assert (zeroth["forwards"], zeroth["backwards"], zeroth["queries"]) == (6, 0, 24)
    assert (first["forwards"], first["backwards"], first["queries"]) == (3, 3, 12)
    assert zeroth["tokens"] == 2 * first["tokens"] == 2 * first["backward_tokens"]
    # 2 a weight and token forward, 4 back.
    assert first["flops"] / zeroth["flops"] == pytest.approx((2 + 4) / (2 * 2))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["task.metric=squad"], "task.metric: given 'squad'; allowed: accuracy, f1"),
        (["task.answer=' {answer}'"], "task.metric: given 'accuracy'; allowed: squad, drop"),
        (
            ["task.answer=' {answer}'", "task.metric=squad"],
            "task.train_as: given 'classification'; allowed: language_model",
        ),
        (
            ["optimizer=zero_shot", "tuning=lora"],
            "tuning: Lora is given; allowed with no optimizer: full",
        ),
        (
            ["optimizer=linear_probe", "model.kind=classifier"],
            "model.kind: given 'classifier'; allowed: causal or masked",
        ),
        (
            ["+task.source.options={column: x}", "task.metric=f1"],
            "task.source.options: no such key; it takes task, train, dev, test, seed",
        ),
        (["micro_batch_size=0"], "micro_batch_size: given 0; allowed: a whole number >= 1"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_together_are_refused_before_anything_is_loaded(
    tmp_path, overrides, told
):
    with pytest.raises(UserError, match=f"^{told}"):
        result(tmp_path, *overrides)


def test_what_is_searched_beside_deep_prompts_is_scored_by_the_fused_engine(tmp_path):
    method = ["tuning=deep_prompt", "optimizer=lozo", "rank=r1", "steps=2"]
    fused = result(tmp_path / "fused", *method)
    assert fused["engine"]["mode"] == "fused"
    result(tmp_path / "in_place", *method, "engine.mode=in_place")
    torch.testing.assert_close(
        told(tmp_path / "fused"), told(tmp_path / "in_place"), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("tuning", "most"),
    [("prefix", "256,"), ("prompt", "256,"), ("deep_prompt", "254, .* beside 2")],
)
def test_more_virtual_tokens_than_a_model_can_read_are_refused(tmp_path, tuning, most):
    told = rf"^tuning\.tokens: given 1000; allowed: less than {most}"
    with pytest.raises(UserError, match=told):
        result(tmp_path, f"tuning={tuning}", "tuning.tokens=1000", "optimizer=mezo")
