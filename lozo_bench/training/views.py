"""Dev metrics of weights that can be evaluated in several ways (see `HasViews`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

from lozo_bench.config.schema import Select
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.optimizers.base import HasViews
from lozo_bench.training.selection import is_better


def evaluate_views(optimizer: HasViews, evaluate: Callable[[], Metrics], select: Select) -> Metrics:
    """Evaluate the weights in each way.

    Returns:
        The metrics of the best one of those that may be tested, and, if there are several, those
        of each way ``p`` under names such as ``p.accuracy``.
    """
    found = {}
    for name in optimizer.views:
        optimizer.view(name)
        found[name] = evaluate()
    best = found[_best(found, optimizer.tested, select)]
    if len(found) == 1:
        return best
    each = {f"{name}.{key}": x for name, own in found.items() for key, x in own.values.items()}
    return Metrics({**best.values, **each}, best.guesses)


def show_best(optimizer: HasViews, metrics: Metrics, select: Select) -> None:
    """Put the weights into the way whose metrics `evaluate_views` returned as the best ones."""
    if len(optimizer.tested) == 1:
        optimizer.view(optimizer.tested[0])
        return
    found = {name: _of(name, metrics.values) for name in optimizer.tested}
    optimizer.view(_best(found, optimizer.tested, select))


def _of(name: str, values: Mapping[str, float]) -> Metrics:
    start = f"{name}."
    own = {key.removeprefix(start): x for key, x in values.items() if key.startswith(start)}
    return Metrics(own)


def _best(found: Mapping[str, Metrics], tested: Sequence[str], select: Select) -> str:
    """Return the best way by what selects the step, and of equal ones that of the lowest loss.

    If the last step is tested, the main metric decides.
    """
    by = Select.dev_metric if select is Select.last else select

    def better(one: str, other: str) -> str:
        if is_better(found[other], found[one], by):
            return other
        as_good = not is_better(found[one], found[other], by)
        return other if as_good and found[other].loss < found[one].loss else one

    return reduce(better, tested)
