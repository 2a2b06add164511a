"""Fireworks: BBFWA and LoTFWA as searches that are asked for points and told their losses.

``variant=bbfwa``: the bare bones fireworks algorithm; Li and Tan, Applied Soft Computing 62 (2018).
``variant=lotfwa``: Li and Tan, "Loser-Out Tournament-Based Fireworks Algorithm for Multimodal
Function Optimization", IEEE Transactions on Evolutionary Computation 22 (2018). A firework k is a
point P_k with its loss F_k and an amplitude A_k. A turn scores n sparks of each firework, then in
LoTFWA one guiding spark g_k of each, and moves every firework to its best point:

    (1)  s_i = P_k + A_k u_i,  u_i uniform in [-1, 1]^d                i = 1 ... n
    (2)  g_k = P_k + mean of the best q sparks - mean of the worst q   q = max(1, 0.2 n)   LoTFWA
    (3)  P'_k, F'_k = the best of P_k, its sparks and g_k
    (4)  A'_k = 1.2 A_k if F'_k < F_k (LoTFWA: F_k - F'_k > 1e-8), else 0.9 A_k
    (5)  k starts anew if F_k - F'_k > 1e-8 and (F_k - F'_k) * (turns left) < F'_k - min_j F'_j,
         that is, if at its present rate it will not reach the best of today                LoTFWA

BBFWA is (1), (3) and (4) with one firework. 1.2 and 0.9 are the options ``amplify``, ``reduce``.

What differs from the papers, which search a box for the minimum of a loss that stays the same:

* Every turn has exactly popsize points, the guiding sparks included. A firework whose loss is not
  known is scored in place of one of its own sparks: all of them in the first turn, and one that
  starts anew in the next turn.
* ``reevaluate=True`` scores every firework again each turn in place of a spark. Here the loss moves
  between two turns of a search, because the other layers are searched in the meantime. With the
  loss of an earlier turn a firework would move to a spark that is worse than itself, and its
  amplitude would grow, whenever the others have made progress. So this is the default; with False,
  a firework keeps the loss with which it was found, as in the papers.
* There is no box unless ``bounds`` is given. With a box, every number outside is drawn anew in it.
* The first firework starts at 0, the untouched model, as CMA-ES does; the others at a tenth of a
  spark from 0. Without a box, one that starts anew starts like them, and with one anywhere in it.
* The amplitude starts at sqrt(3) sigma, not at the width of the box: a spark then has the length of
  a draw from N(0, sigma^2).
* A firework starts anew also if all its points have failed.

In published code of LoTFWA, (2) has the opposite sign, which leads from the best sparks to the
worst; the paper's is used here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import check_count, check_positive
from lozo_bench.optimizers.search import Found, Point, check_losses
from lozo_bench.randomness.draws import Draws

Variant = Literal["bbfwa", "lotfwa"]

_GUIDING_RATIO = 0.2
_LEAST_GAIN = 1e-8
_NEAR = 0.1  # how far from 0 fireworks start, as a share of the first amplitude


class Fireworks:
    """A search by fireworks that starts at 0.

    Args:
        draws: the run's source of random numbers.
        name: the name of the search, part of the key of its random numbers.
        dimension: how many numbers a point has.
        sigma: the standard deviation of the first turn's sparks.
        popsize: points of a turn, the guiding sparks included; a multiple of ``fireworks``.
        bounds: every number stays between -bounds and bounds; None: no limit.
        variant: ``bbfwa`` or ``lotfwa``.
        fireworks: how many; None: 1 for BBFWA, which has no more, and 2 for LoTFWA.
        turns: how many turns the search will have in all, for LoTFWA's rule (5).
        amplitude: the first amplitude; None: sqrt(3) sigma.
        amplify: the factor of an amplitude after an improvement.
        reduce: its factor after a turn without one.
        reevaluate: score every firework again each turn, because the loss moves between turns.

    Raises:
        BadValueError: a value is not allowed.
    """

    points: ClassVar[tuple[Point, ...]] = ("best_ever", "generation_best")

    def __init__(
        self,
        draws: Draws,
        name: str,
        *,
        dimension: int,
        sigma: float,
        popsize: int,
        bounds: float | None = None,
        variant: Variant = "bbfwa",
        fireworks: int | None = None,
        turns: int,
        amplitude: float | None = None,
        amplify: float = 1.2,
        reduce: float = 0.9,
        reevaluate: bool = True,
    ) -> None:
        if fireworks is None:
            fireworks = 2 if variant == "lotfwa" else 1
        if amplitude is None:
            amplitude = math.sqrt(3) * sigma
        _check_counts(variant, fireworks, popsize, dimension, turns)
        _check_numbers(amplify, reduce, sigma=sigma, amplitude=amplitude, bounds=bounds)
        self._draws, self._name, self._bounds, self._turns = draws, name, bounds, turns
        self._guided = variant == "lotfwa"
        self._amplify, self._reduce, self._reevaluate = amplify, reduce, reevaluate
        self._first_amplitude = amplitude
        # Fireworks, the points of each in a turn's first ask, numbers of a point.
        self._shape = fireworks, popsize // fireworks - self._guided, dimension
        self._P = self._around_0(min(_NEAR * amplitude, bounds or math.inf), 0, "start")
        self._P[0] = 0
        self._F = torch.full((fireworks, 1), math.nan, dtype=torch.float64)  # NaN: not known
        self._A = torch.full((fireworks, 1), amplitude, dtype=torch.float64)
        self._turns_told, self._last_turn, self._found = 0, -1, Found()
        # The turn that was asked for, its points [k, n, d], and the losses of those that were told.
        self._asked: int | None = None
        self._points = torch.empty(fireworks, 0, dimension, dtype=torch.float64)
        self._losses = torch.empty(fireworks, 0, dtype=torch.float64)

    @property
    def asks(self) -> int:
        """How often a turn asks: LoTFWA's guiding sparks depend on the losses of the others."""
        return 2 if self._guided else 1

    @property
    def best_loss(self) -> float:
        """The smallest loss of all full turns; infinite before the first."""
        return self._found.best_loss

    def ask(self, turn: int) -> Tensor:
        """Return the sparks of a turn, or its guiding sparks; see `Search.ask`."""
        if turn != self._asked:
            if turn <= self._last_turn:
                raise ValueError(f"turn {turn} is not after turn {self._last_turn}, which was told")
            self._asked, self._points, self._losses = turn, self._sparks(turn), self._losses[:, :0]
        elif self._losses.shape[1] == self._points.shape[1]:
            self._points = torch.cat((self._points, self._guides(turn)), 1)
        return self._points[:, self._losses.shape[1] :].flatten(0, 1)

    def tell(self, losses: Sequence[float]) -> None:
        """Tell the losses of the points of the last `ask`; see `Search.tell`."""
        if self._asked is None:
            raise ValueError("tell without ask")
        fireworks, sparks, _ = self._shape
        check_losses([*self._losses.flatten().tolist(), *losses], len(self._points.flatten(0, 1)))
        told = torch.tensor(losses, dtype=torch.float64).view(fireworks, -1)
        self._losses = torch.cat((self._losses, told), 1)
        if self._losses.shape[1] < sparks + self._guided:
            return
        self._found.add(self._points.flatten(0, 1), self._losses.flatten().tolist())
        self._turns_told, self._last_turn = self._turns_told + 1, self._asked
        self._move(self._points, self._losses)
        self._asked, self._points, self._losses = None, self._points[:, :0], self._losses[:, :0]

    def point(self, which: Point) -> Tensor:
        """Return a point, float64 [d]; see `Search.point`. Fireworks have no mean."""
        if which not in self.points:
            raise ValueError(f"fireworks have no {which}")
        return self._found.point(which)

    def numbers(self) -> dict[str, float]:
        """Return ``amplitude``, that of the firework with the smallest loss."""
        return {"amplitude": self._A[self._F.nan_to_num(math.inf, math.inf).argmin()].item()}

    def state(self) -> dict[str, Tensor]:
        """Return the fireworks, the best points, and what was told of a turn that is not full."""
        found = [x for x in (self._found.best_ever, self._found.generation_best) if x is not None]
        asked = [] if self._asked is None else [self._asked]
        return {
            "P": self._P.clone(),
            "F": self._F.clone(),
            "A": self._A.clone(),
            "turns": torch.tensor([self._turns_told, self._last_turn]),
            "found": torch.stack(found) if found else self._P[:0].clone(),
            "best_loss": torch.tensor(self.best_loss, dtype=torch.float64),
            "asked": torch.tensor(asked, dtype=torch.int64),
            "losses": self._losses.clone(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` returned."""
        self._P, self._F, self._A = (state[name].clone() for name in "PFA")
        self._turns_told, self._last_turn = state["turns"].tolist()
        self._found = Found()
        if len(state["found"]):
            best_ever, generation_best = state["found"].clone()
            self._found = Found(best_ever, state["best_loss"].item(), generation_best)
        self._asked = None
        for turn in state["asked"].tolist():
            self.ask(turn)
            self._losses = state["losses"].clone()
            self.ask(turn)

    def uniform(self, turn: int, use: str, shape: tuple[int, ...]) -> Tensor:
        """Return float64 numbers, uniform in [0, 1), that depend on the arguments alone.

        They are for one ``use`` in the turn, such as ``sparks``, or ``sparks outside`` for what
        replaces numbers outside of the box.
        """
        name = f"{self._name}/{use}"
        flat = self._draws.uniform_range("fireworks", turn, name, 0, math.prod(shape))
        return flat.view(shape).double()

    def _scored(self) -> Tensor:
        """Return which fireworks are scored this turn, in place of their first spark; [k, 1]."""
        return torch.ones_like(self._F, dtype=torch.bool) if self._reevaluate else self._F.isnan()

    def _sparks(self, turn: int) -> Tensor:
        """Return the points of a turn's first ask by (1), [k, n, d]."""
        P, A = self._P[:, None], self._A[:, None]
        sparks = _between(P - A, P + A, self.uniform(turn, "sparks", self._shape))
        sparks = self._into_box(sparks, turn, "sparks outside")
        sparks[:, 0] = torch.where(self._scored(), self._P, sparks[:, 0])
        return sparks

    def _guides(self, turn: int) -> Tensor:
        """Return the guiding spark of each firework by (2), [k, 1, d]."""
        first = self._scored().int().flatten().tolist()  # the firework itself is no spark
        guides = [
            P + _guide(self._points[k, first[k] :], self._losses[k, first[k] :])
            for k, P in enumerate(self._P)
        ]
        return self._into_box(torch.stack(guides)[:, None], turn, "guides outside")

    def _move(self, points: Tensor, losses: Tensor) -> None:
        """Move every firework by (3), change its amplitude by (4) and apply (5).

        Args:
            points: of a whole turn, [k, n, d].
            losses: of the points, [k, n].
        """
        F = torch.where(self._scored(), losses[:, :1], self._F)
        best, at = losses.min(1, keepdim=True)
        better = best < F
        self._P = torch.where(better, points[torch.arange(len(points)), at.flatten()], self._P)
        self._F = torch.where(better, best, F)
        gain = (F - self._F).nan_to_num(0.0, math.inf)  # infinite less infinite: nothing gained
        improved = gain > (_LEAST_GAIN if self._guided else 0)
        self._A = torch.where(improved, self._A * self._amplify, self._A * self._reduce)
        if self._guided:
            behind = self._F - self._F.min()
            losers = improved & (gain * max(0, self._turns - self._turns_told) < behind)
            self._start_anew(losers | self._F.isinf())

    def _start_anew(self, which: Tensor) -> None:
        """Replace fireworks, [k, 1], by new ones whose losses are not known."""
        width = _NEAR * self._first_amplitude if self._bounds is None else self._bounds
        new = self._around_0(width, self._last_turn, "restart")
        self._P = torch.where(which, new, self._P)
        self._F = self._F.masked_fill(which, math.nan)
        self._A = self._A.masked_fill(which, self._first_amplitude)

    def _around_0(self, width: float, turn: int, use: str) -> Tensor:
        """Return new fireworks, uniform in [-width, width]^d; [k, d]."""
        fireworks, _, dimension = self._shape
        return width * (2 * self.uniform(turn, use, (fireworks, dimension)) - 1)

    def _into_box(self, points: Tensor, turn: int, use: str) -> Tensor:
        """Return points whose numbers outside of the box, if there is one, are drawn anew in it."""
        if self._bounds is None:
            return points
        b = torch.tensor(self._bounds, dtype=torch.float64)
        anew = _between(-b, b, self.uniform(turn, use, tuple(points.shape)))
        return torch.where(points.abs() > b, anew, points)


def _between(low: Tensor, high: Tensor, u: Tensor) -> Tensor:
    return low + (high - low) * u


def _guide(sparks: Tensor, losses: Tensor) -> Tensor:
    """Return the vector [d] from the mean of the worst sparks to that of the best ones, of (2)."""
    order = losses.argsort(stable=True)
    q = max(1, int(_GUIDING_RATIO * len(order)))
    return sparks[order[:q]].mean(0) - sparks[order[-q:]].mean(0)


def _check_counts(variant: str, fireworks: int, popsize: int, dimension: int, turns: int) -> None:
    check_count("dimension", dimension)
    check_count("turns", turns)
    if variant not in ("bbfwa", "lotfwa"):
        raise bad_value("variant", variant, "bbfwa or lotfwa")
    if (fireworks != 1) if variant == "bbfwa" else (fireworks < 2):
        raise bad_value("fireworks", fireworks, "1 with bbfwa, a whole number >= 2 with lotfwa")
    # LoTFWA: the firework itself, the best and the worst spark, and the guiding spark.
    least = 4 * fireworks if variant == "lotfwa" else 2
    if popsize % fireworks or popsize < least:
        multiple = f"a multiple of fireworks ({fireworks}), " if fireworks > 1 else ""
        raise bad_value("popsize", popsize, f"{multiple}a whole number >= {least}")


def _check_numbers(amplify: float, reduce: float, **positive: float | None) -> None:
    for key, number in positive.items():
        if number is not None:
            check_positive(key, number)
    if not 1 <= amplify < math.inf:
        raise bad_value("amplify", amplify, "a number >= 1")
    if not 0 < reduce <= 1:
        raise bad_value("reduce", reduce, "a number above 0 and at most 1")
