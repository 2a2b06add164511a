"""Warnings about a finished run that has metrics, but did not train its model or destroyed it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lozo_bench.engine.tensors import is_half
from lozo_bench.evaluation.evaluate import Metrics

# A confident model that is wrong has a loss of some nats; this many times a guess's is no model.
_DESTROYED = 100
# Losses that differ by less than this share of their size have hardly moved.
_HARDLY = 1e-4
_EARLY = 3  # evaluations after which a run that does not move is said to
_TRIAL = 10  # a run of fewer steps is a trial, from which nobody expects a better model


def doubts(
    before: Metrics,
    after: Metrics,
    dev: Sequence[Metrics],
    steps: int,
    lr: float,
    dtype: torch.dtype,
) -> str | None:
    """Return a line about a run that has not trained its model, or has destroyed it.

    Nothing of the run depends on it.

    Args:
        before: the test set's metrics before the first step.
        after: those with the tested weights.
        dev: all metrics of the dev set, in order.
        steps: how many steps the run made.
        lr: its learning rate; 0 of a method that searches points instead of taking steps.
        dtype: the dtype of the weights.

    Returns:
        One line with what to do; None if there is nothing to say.
    """
    if after.guesses and not before.guesses:
        return (
            f"the loss of every test row is that of a guess ({after.loss:.4f}, as if all its "
            "options had the same score): the model no longer tells the options apart. What to do: "
            f"a {_step_size('smaller', lr)}; metrics.jsonl shows when the loss went there"
        )
    if after.loss > _DESTROYED * max(1.0, before.loss):
        return (
            f"the loss of the test rows rose from {before.loss:.4f} to {after.loss:.4g}: the steps "
            f"destroyed the model. What to do: a {_step_size('smaller', lr)}"
        )
    losses = [metrics.loss for metrics in dev]
    tested, evaluated = [before.loss, after.loss], losses or [0.0]
    # Losses of half precision are rounded; a mean over rows less so.
    limit = max(_HARDLY, torch.finfo(dtype).eps / 4)
    if steps >= _TRIAL and all(_range(x) <= limit * abs(x[0]) for x in (tested, evaluated)):
        half = " model.dtype=fp32 (half precision loses small updates)," if is_half(dtype) else ""
        return (
            f"the loss has hardly moved in {steps} steps: on the test rows it was "
            f"{before.loss:.6f} before them and is {after.loss:.6f}, and all dev losses are within "
            f"{limit:.2%} of each other. What to do: a {_step_size('larger', lr)},{half} or more "
            "steps"
        )
    return None


def not_moving(
    dev: Sequence[Metrics], step: int, steps: int, lr: float, dtype: torch.dtype
) -> str | None:
    """Return a line if a run's first three evaluations on dev have the same loss; else None.

    `doubts` says the same at the end of the run, which may be days later.

    Args:
        dev: the evaluations so far.
        step: the step after which the last of them was made.
        steps: how many steps the run makes.
        lr: its learning rate; 0 of a method that searches points instead of taking steps.
        dtype: the dtype of the weights.
    """
    losses = [metrics.loss for metrics in dev]
    limit = max(_HARDLY, torch.finfo(dtype).eps / 4)
    if len(losses) != _EARLY or not _TRIAL <= step < steps or _range(losses) > limit * losses[0]:
        return None
    grid = ",".join(f"{lr * factor:g}" for factor in (10, 100, 1000))
    what = f"stop it and try a grid, -m optimizer.lr={grid}" if lr else "stop it"
    half = ", or model.dtype=fp32 (half precision loses small updates)" if is_half(dtype) else ""
    return (
        f"step {step}: the dev loss has hardly moved in {_EARLY} evaluations: all are within "
        f"{limit:.2%} of {losses[0]:.6f}. The run goes on; what to do: {what}: a "
        f"{_step_size('larger', lr)}{half}"
    )


def _step_size(change: str, lr: float) -> str:
    """Say which option makes a method's steps larger or smaller."""
    return f"{change} optimizer.lr than {lr:g}" if lr else f"{change} optimizer.sigma or alpha"


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)
