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
_FORMER_TARGETS = {
    "lozo_bench.optimizers.zero_shot.ZeroShot",
    "lozo_bench.optimizers.icl.InContext",
}


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
    if optimizer.get("_target_") not in _FORMER_TARGETS:
        return dict(config)
    options = {key.partition(".")[2]: new.partition(".")[2] for key, new in RENAMED.items()}
    evaluation = {options[name]: x for name, x in optimizer.items() if name in options}
    return {**config, "optimizer": {}, "evaluation": evaluation}
