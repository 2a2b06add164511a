"""Keys that have another name now are still understood."""

from __future__ import annotations

from lozo_bench.config.renamed import RENAMED, with_new_names, with_new_optimizer
from lozo_bench.config.schema import EvaluationConfig


def test_old_keys_are_replaced_and_named():
    now, notes = with_new_names(["-m", "optimizer=icl", "optimizer.demonstrations=2,4", "seed=s1"])
    assert now == ["-m", "optimizer=icl", "evaluation.shots=2,4", "seed=s1"]
    assert notes == ["optimizer.demonstrations is now called evaluation.shots"]


def test_a_plus_before_an_old_key_is_dropped_because_the_new_key_always_exists():
    assert with_new_names(["method=icl", "++optimizer.calibrated=true"])[0] == [
        "method=icl", "evaluation.calibrated=true",
    ]  # fmt: skip


def test_other_arguments_stay_as_they_are():
    arguments = [
        "optimizer.lr=1",
        "--config-dir=x",
        "~seed",
        "task.prompt='a=b'",
        "optimizer.seeds=1",
    ]
    assert with_new_names(arguments) == (arguments, [])


def test_options_of_other_optimizers_keep_their_names():
    for choice in ("optimizer=lozo", "optimizer=lozo,icl", "seed=s1"):
        arguments = [choice, "optimizer.seed=3"]
        assert with_new_names(arguments) == (arguments, [])


def test_a_stored_config_of_a_run_that_only_evaluated_is_understood():
    icl = {"_target_": "lozo_bench.optimizers.icl.InContext", "demonstrations": 4, "seed": 1}
    assert with_new_optimizer({"steps": 1, "optimizer": icl}) == {
        "steps": 1, "optimizer": {}, "evaluation": {"shots": 4, "seed": 1},
    }  # fmt: skip
    lozo = {"optimizer": {"_target_": "lozo_bench.optimizers.lozo.Lozo", "lr": 1.0}}
    assert with_new_optimizer(lozo) == lozo


def test_every_new_key_exists():
    assert {key.partition(".")[2] for key in RENAMED.values()} <= set(vars(EvaluationConfig()))


def test_the_command_understands_an_old_key(command):
    code, out, err = command("optimizer=icl", "optimizer.demonstrations=3", "--cfg", "job")
    assert code == 0
    assert "shots: 3" in out
    assert "optimizer.demonstrations is now called evaluation.shots" in err
