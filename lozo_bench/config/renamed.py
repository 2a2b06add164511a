"""Names that have changed; the former ones are still understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Zero-shot evaluation and in-context learning were optimizers with these options.
RENAMED = {
    "optimizer.demonstrations": "evaluation.shots",
    "optimizer.sets": "evaluation.sets",
    "optimizer.seed": "evaluation.seed",
    "optimizer.calibrated": "evaluation.calibrated",
    "optimizer.calibrate_shown": "evaluation.calibrate_shown",
}
_WITHOUT_OPTIMIZER = {"zero_shot", "icl"}
_ZERO_SHOT = "lozo_bench.optimizers.zero_shot.ZeroShot"
_IN_CONTEXT = "lozo_bench.optimizers.icl.InContext"
# option of the former optimizers -> key of the group evaluation
_OPTIONS = {old.partition(".")[2]: new.partition(".")[2] for old, new in RENAMED.items()}


def with_new_names(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments of a command with today's keys, and a line for each former key.

    The keys are renamed only in commands for evaluation without an optimizer; other optimizers may
    have options of these names.
    """
    chosen = {
        option
        for argument in arguments
        if argument.startswith(("optimizer=", "method="))
        for option in argument.partition("=")[2].split(",")
    }
    if not chosen or not chosen <= _WITHOUT_OPTIMIZER:
        return list(arguments), []
    now, notes = [], []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        name = key.lstrip("+")
        if equals and name in RENAMED:
            notes.append(f"{name} is now called {RENAMED[name]}")
            argument = f"{RENAMED[name]}={value}"  # it exists in every config: no + is needed
        now.append(argument)
    return now, notes


def with_new_optimizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config, without the optimizer of a run that only evaluated.

    Such a config is of a former version.
    """
    optimizer = config.get("optimizer") or {}
    if optimizer.get("_target_") not in (_ZERO_SHOT, _IN_CONTEXT):
        return dict(config)
    evaluation = {_OPTIONS[name]: x for name, x in optimizer.items() if name in _OPTIONS}
    return {**config, "optimizer": {}, "evaluation": evaluation}


def with_former_optimizer(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config as it was when evaluation without training was an optimizer.

    Zero-shot and in-context runs of that time keep their digest, so that they are still found.
    """
    evaluation = config.get("evaluation")
    if config.get("optimizer") or not evaluation:
        return config
    if evaluation["shots"]:
        options = {old: evaluation[new] for old, new in _OPTIONS.items()}
        former = {"_target_": _IN_CONTEXT, **options}
    else:
        former = {"_target_": _ZERO_SHOT, "calibrated": evaluation["calibrated"]}
    rest = {name: value for name, value in config.items() if name != "evaluation"}
    return {**rest, "optimizer": former}
