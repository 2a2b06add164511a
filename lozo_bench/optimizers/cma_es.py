"""CMA-ES, the covariance matrix adaptation evolution strategy, by the `cma` package.

Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv 1604.00772); Nikolaus Hansen, Youhei Akimoto
and Petr Baudis, `cma` 4.5 on PyPI. A turn draws popsize points and moves the distribution towards
the best half of them:

    (1)  z_i = m + sigma * N(0, C)                    i = 1 ... popsize, ranked by their losses
    (2)  m' = sum_i w_i z_(i)                         over the best popsize / 2
    (3)  p' = (1 - c) p + sqrt(c (2 - c) mu_eff) C^(-1/2) (m' - m) / sigma
    (4)  sigma' = sigma * exp(c / d * (|p'| / E|N(0, I)| - 1))          step_size: csa
    (5)  C' = C, drawn towards the outer products of the steps; weights of the worst are negative

Up to `cma` 4.4 the rule for sigma was cumulative step-size adaptation, (3) and (4), in every
dimension; from 4.5 on the package itself chooses two-point adaptation from 300 dimensions on.
The rule is therefore always named here. ``step_size=tpa`` is two-point adaptation (Hansen et al.,
PPSN 2014): two points of a turn lie along the last step of the mean, one on either side, and their
ranks decide whether sigma grows. At 500 numbers and 20 points a turn, 16 turns change little but
the mean: C stays near the identity and sigma goes from 1 to about 0.86, even on random losses.

What differs from the package as it comes: its random numbers are the run's keyed ones, and nothing
touches NumPy's generator; only the ranks of the losses are used, equal losses in the order in which
their points were asked for, failed points last; it never stops by itself, and is silent. The state
is what it was told: the package's object is made again from that, to the same bits on the same
machine. `numpy.linalg.eigh` may differ in its last bits between machines; ``diagonal=True`` does
not call it, and is several times as fast.
"""

from __future__ import annotations

import functools
import math
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import check_count, check_positive
from lozo_bench.optimizers.search import Found, Point, check_losses
from lozo_bench.randomness.draws import Draws

StepSize = Literal["csa", "tpa"]


class CmaEs:
    """A search by CMA-ES that starts at 0.

    Args:
        draws: the run's source of random numbers.
        name: the name of the search, part of the key of its random numbers.
        dimension: how many numbers a point has.
        sigma: the standard deviation of the first turn's points.
        popsize: points of a turn.
        bounds: every number stays between -bounds and bounds; None: no limit. The package maps
            points outside smoothly into the box, and never lets sigma grow over a third of it.
        step_size: the rule for sigma: ``csa`` (as published) or ``tpa``.
        diagonal: keep only the diagonal of C, which needs memory and time linear in the dimension.

    Raises:
        BadValueError: a value is not allowed.
    """

    points: ClassVar[tuple[Point, ...]] = ("best_ever", "generation_best", "mean")
    asks = 1

    def __init__(
        self,
        draws: Draws,
        name: str,
        *,
        dimension: int,
        sigma: float,
        popsize: int,
        bounds: float | None = None,
        step_size: StepSize = "csa",
        diagonal: bool = False,
    ) -> None:
        _check(dimension, sigma, popsize, bounds, step_size)
        self._make = functools.partial(
            _Strategy, draws, name, dimension, sigma, popsize, bounds, step_size, diagonal
        )
        self._sigma, self._popsize = sigma, popsize
        self._turns: list[int] = []
        self._losses: list[list[float]] = []
        self._asked: int | None = None
        # The package's object, and the best points; made from what was told when they are needed.
        self._strategy: _Strategy | None = None
        self._found = Found()

    def ask(self, turn: int) -> Tensor:
        """Return the points of a turn, float64 [popsize, d]; see `Search.ask`."""
        if turn != self._asked or self._strategy is None:
            if self._turns and turn <= self._turns[-1]:
                raise ValueError(f"turn {turn} is not after turn {self._turns[-1]}, which was told")
            if self._asked is not None:
                self._strategy = None  # the turn that was asked for and not told leaves no trace
            self._current().ask(turn)
            self._asked = turn
        return self._current().asked.clone()

    def tell(self, losses: Sequence[float]) -> None:
        """Tell the losses of the points of the last `ask`; see `Search.tell`."""
        if self._asked is None:
            raise ValueError("tell without ask")
        check_losses(losses, self._popsize)
        strategy = self._current()
        self._found.add(strategy.asked, losses)
        strategy.tell(losses)
        self._turns.append(self._asked)
        self._losses.append(list(losses))
        self._asked = None

    def point(self, which: Point) -> Tensor:
        """Return a point, float64 [d]; see `Search.point`."""
        mean = self._current().mean()  # first of all, because it may have to be made again
        return mean if which == "mean" else self._found.point(which)

    @property
    def best_loss(self) -> float:
        """The smallest loss told so far; infinite before the first turn."""
        return min((min(each) for each in self._losses), default=math.inf)

    def numbers(self) -> dict[str, float]:
        """Return ``sigma``, the step size."""
        return {"sigma": self._current().sigma if self._turns else self._sigma}

    def state(self) -> dict[str, Tensor]:
        """Return the turns and losses that were told, and the turn that was asked for."""
        asked = [] if self._asked is None else [self._asked]
        return {
            "turns": torch.tensor(self._turns, dtype=torch.int64),
            "losses": torch.tensor(self._losses, dtype=torch.float64).view(-1, self._popsize),
            "asked": torch.tensor(asked, dtype=torch.int64),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` returned."""
        self._turns, self._losses = state["turns"].tolist(), state["losses"].tolist()
        self._asked, self._strategy = None, None
        for turn in state["asked"].tolist():
            self.ask(turn)

    def _current(self) -> _Strategy:
        """Return the package's object after all that was told, made again if it is not there."""
        if self._strategy is None:
            self._strategy, self._found = self._make(), Found()
            for turn, losses in zip(self._turns, self._losses, strict=True):
                self._strategy.ask(turn)
                self._found.add(self._strategy.asked, losses)
                self._strategy.tell(losses)
        return self._strategy


class _Strategy:
    """The package's object, with keyed random numbers, one BLAS thread and no words."""

    def __init__(
        self,
        draws: Draws,
        name: str,
        dimension: int,
        sigma: float,
        popsize: int,
        bounds: float | None,
        step_size: StepSize,
        diagonal: bool,
    ) -> None:
        cma = _cma()
        self._normals = _Normals(draws, name)
        options = {
            "popsize": popsize,
            "AdaptSigma": _step_size_rule(step_size),
            "CMA_diagonal": diagonal,
            "bounds": None if bounds is None else [-bounds, bounds],
            "randn": self._normals,
            "seed": np.nan,  # leave NumPy's generator alone
            "verbose": -9,  # print, warn and write nothing
        }
        with _one_blas_thread():
            self._es = cma.CMAEvolutionStrategy(np.zeros(dimension), sigma, options)
        self.asked = torch.empty(0, dimension, dtype=torch.float64)

    def ask(self, turn: int) -> None:
        """Draw the points of a turn, and keep them in ``asked``."""
        self._normals.start(turn)
        with _one_blas_thread():
            self._arrays = self._es.ask()
        self.asked = torch.from_numpy(np.stack(self._arrays))

    def tell(self, losses: Sequence[float]) -> None:
        """Move the distribution. Only the order of the losses matters to it."""
        with _one_blas_thread():
            self._es.tell(self._arrays, _ranks(losses))

    def mean(self) -> Tensor:
        """Return the mean of the distribution, moved into the box if there is one."""
        return torch.from_numpy(np.array(self._es.result.xfavorite))

    @property
    def sigma(self) -> float:
        return float(self._es.sigma)


class _Normals:
    """Replaces `numpy.random.randn`: keyed by the search's name, the turn and the call in it."""

    def __init__(self, draws: Draws, name: str) -> None:
        self._draws, self._name = draws, name
        self.start(0)

    def start(self, turn: int) -> None:
        self._turn, self._calls = turn, 0

    def __call__(self, *shape: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        name = f"{self._name}/{self._calls}"
        self._calls += 1
        drawn = self._draws.normal("cma_es", self._turn, {name: shape}, dtype=torch.float64)
        return drawn[name].numpy()


def _ranks(losses: Sequence[float]) -> list[float]:
    """Return for each loss how many are smaller, plus a fraction that grows with its place.

    So no two are equal, and none is infinite: `numpy.argsort`, which the package uses, orders equal
    numbers in different ways on different processors.
    """
    ordered = sorted(losses)
    return [bisect_left(ordered, loss) + i / len(losses) for i, loss in enumerate(losses)]


def _cma() -> Any:
    """Import cma: late, because it takes 2 s, and without its warning if matplotlib is missing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Could not import matplotlib", UserWarning)
        import cma
    return cma


def _step_size_rule(step_size: StepSize) -> Any:
    if step_size == "tpa":
        return _two_point_rule()
    from cma.sigma_adaptation import CMAAdaptSigmaCSA

    return CMAAdaptSigmaCSA


@functools.cache
def _two_point_rule() -> Any:
    from cma.sigma_adaptation import CMAAdaptSigmaTPA

    class TwoPoint(CMAAdaptSigmaTPA):  # type: ignore[misc]  # the package has no types
        """The package's rule; it leaves NumPy's generator alone and sees which losses are equal."""

        def check_consistency(self, es: Any) -> None:
            """Do nothing: the package compares coordinates drawn from NumPy's generator."""

        def update2(self, es: Any, function_values: Sequence[float], **others: Any) -> float:
            """Return the factor of sigma; whole parts of ranks are equal for equal losses."""
            factor: float = super().update2(es, np.floor(function_values), **others)
            return factor

    return TwoPoint


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Let BLAS use one thread: on few cores, more make an eigendecomposition 20 times as slow.

    Its result then does not depend on the number of cores.
    """
    with _blas().limit(limits=1, user_api="blas"):
        yield


def _check(
    dimension: int, sigma: float, popsize: int, bounds: float | None, step_size: str
) -> None:
    check_count("dimension", dimension)
    if step_size not in ("csa", "tpa"):
        raise bad_value("step_size", step_size, "csa or tpa")
    least = 3 if step_size == "tpa" else 2
    if popsize < least:
        raise bad_value("popsize", popsize, f"a whole number >= {least} (with {step_size})")
    check_positive("sigma", sigma)
    if bounds is not None:
        check_positive("bounds", bounds)
        if 3 * sigma > 2 * bounds:
            raise bad_value("sigma", sigma, f"at most two thirds of bounds ({bounds})")
