"""Keys that have another name now are still understood."""

from __future__ import annotations

from lozo_bench.config.renamed import RENAMED, with_new_names
from lozo_bench.config.schema import EvaluationConfig


def test_old_keys_are_replaced_and_named():
    now, notes = with_new_names(["-m", "optimizer=icl", "optimizer.demonstrations=2,4", "seed=s1"])
    assert now == ["-m", "optimizer=icl", "evaluation.shots=2,4", "seed=s1"]
    assert notes == ["optimizer.demonstrations is now called evaluation.shots"]


def test_a_plus_before_an_old_key_is_dropped_because_the_new_key_always_exists():
    assert with_new_names(["++optimizer.calibrated=true"])[0] == ["evaluation.calibrated=true"]


def test_other_arguments_stay_as_they_are():
    arguments = [
        "optimizer.lr=1",
        "--config-dir=x",
        "~seed",
        "task.prompt='a=b'",
        "optimizer.seeds=1",
    ]
    assert with_new_names(arguments) == (arguments, [])


def test_every_new_key_exists():
    assert {key.partition(".")[2] for key in RENAMED.values()} <= set(vars(EvaluationConfig()))


def test_the_command_understands_an_old_key(command):
    code, out, err = command("optimizer=icl", "optimizer.demonstrations=3", "--cfg", "job")
    assert code == 0
    assert "shots: 3" in out
    assert "optimizer.demonstrations is now called evaluation.shots" in err
