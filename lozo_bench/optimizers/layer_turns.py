"""Divide and conquer: the layers of a model are searched in turn, each in a space of its own.

Source: Sun et al., "BBTv2", arXiv 2205.11200, algorithm 1; Jin, Liu, Tan, arXiv 2403.01754. With a
search S_i and modules M_i(z) for each layer i = 0, ..., L-1, and z_i its incumbent, if it has one:

    turn t:  i = t mod L
    (1)  Z ~ S_i                                                              ask
    (2)  f_k = F(model with M_i(Z_k) in layer i and M_j(z_j) in all layers j != i; D)     score
    (3)  S_i <- (Z, f)                                                        tell
    (4)  z_i = the best point of S_i

D are all training rows, in the same order in every turn, so that losses of different turns can be
compared. One evaluation of F is a call; a turn has as many calls as the population has points.

Two things are done once, and do not count as calls: F of the model without any module is reported,
and the modules are given the standard deviations of what enters their layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf, isfinite
from statistics import fmean
from typing import Literal, Protocol

import torch
from torch import Tensor

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.subspace import Subspace, along, combination
from lozo_bench.engine.tensors import is_half
from lozo_bench.engine.terms import with_prefix
from lozo_bench.errors import UserError, bad_value
from lozo_bench.optimizers.base import Engine, Event, Needs, Report, Score, Stream
from lozo_bench.optimizers.blocks import layer_number
from lozo_bench.optimizers.search import Point, Search

# What the statistics of the layers' inputs are taken from: the model without modules; the same
# with the first candidate of the first turn, padding included, as in the released code; or nothing.
Statistics = Literal["model", "first_candidate", "none"]
# The points with which dev is evaluated after a turn: the incumbents, or those of the other layers
# with the last candidate of this one, as in the released code.
Look = Literal["incumbent", "candidate"]


class Modules(Protocol):
    """Modules beside the weights of one layer, as a function of z in R^d."""

    @property
    def name(self) -> str:
        """The layer's name."""
        ...

    @property
    def d(self) -> int:
        """The number of entries of z."""
        ...

    def at(self, Z: Tensor, std: float) -> Subspace:
        """Return the modules of the points Z [K, d], as K equal blocks of columns."""
        ...

    def spread(self, z: Tensor, std: float) -> dict[str, float]:
        """Return standard deviations of the modules' entries at z [d], by name."""
        ...


class LayerTurns:
    """Searches the layers in turn.

    Args:
        engine: holds the weights, which stay as they are, and the modules beside them.
        modules: of each layer.
        search: called with a layer's name, returns the search for that layer's z.
        incumbent: which point of a search is the layer's incumbent.
        statistics: what the statistics of the layers' inputs are taken from.
        look: the points with which dev is evaluated after a turn.
    """

    def __init__(
        self,
        engine: Engine,
        modules: Sequence[Modules],
        search: Callable[[str], Search],
        *,
        incumbent: Point,
        statistics: Statistics = "model",
        look: Look = "incumbent",
    ) -> None:
        search("")  # checks the options, also where there is no model and thus no layer
        _refuse_rounding(engine)
        self.engine, self.modules = engine, modules
        self.searches = [search(layer.name) for layer in modules]
        self.incumbent, self.statistics, self.look = incumbent, statistics, look
        self.stds: list[float] = []
        # The points that the model has at the end of a turn: z of each layer with an incumbent,
        # and what stands in place of one of them.
        self.z: dict[int, Tensor] = {}
        self.shown: dict[int, Tensor] = {}
        self._kept: dict[int, Subspace] = {}
        self._attached = False

    def make(self, turn: int, score: Score) -> Report:
        """Make one turn of one layer."""
        i = turn % len(self.modules)
        search, losses, events = self.searches[i], list[float](), list[Event]()
        with self._restored_on_failure(search):
            if not self.stds:
                events += self._begin(score, i, search.ask(turn)[:1])
            self._attach(self.z, without=i)
            for _ in range(search.asks):
                Z = search.ask(turn)  # (1)
                try:
                    found = self._losses(score, i, Z)  # (2)
                except NonFiniteLossError:
                    if not losses:
                        raise
                    found = [inf] * len(Z)  # the turn's first points count all the same
                    score.failed_candidates += len(Z)
                search.tell(found)  # (3)
                losses += found
        self.z = self.z | {i: search.point(self.incumbent)}  # (4)
        self._kept.pop(i, None)
        self.shown = {} if self.look == "incumbent" else {i: Z[-1]}
        self._attach(self.z | self.shown)
        return self._report(turn, losses, events)

    def state(self) -> dict[str, Tensor]:
        """Return what the searches were told, and the points that the model has."""
        state = {"stds": torch.tensor(self.stds, dtype=torch.float64)}
        state |= {f"z/{i}": z for i, z in self.z.items()}
        state |= {f"shown/{i}": z for i, z in self.shown.items()}
        for i, search in enumerate(self.searches):
            state |= {f"search/{i}/{name}": x for name, x in search.state().items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` returned."""
        self.stds = state["stds"].tolist()
        self.z = {int(i): z for i, z in with_prefix("z", state).items()}
        self.shown = {int(i): z for i, z in with_prefix("shown", state).items()}
        for i, search in enumerate(self.searches):
            search.load_state(with_prefix(f"search/{i}", state))
        self._kept, self._attached = {}, bool(self.z)

    def _losses(self, score: Score, i: int, Z: Tensor) -> list[float]:
        P = self.modules[i].at(Z, self.stds[i])
        return score(P, combination(P, torch.eye(len(Z))), finite=False)

    def _begin(self, score: Score, i: int, candidate: Tensor) -> list[Event]:
        """Take the statistics, and score the model without modules."""
        self.stds = [0.0] * len(self.modules)
        if self.statistics != "none":
            self.stds = self._of_modules(score.hidden_spread(padding=self.statistics != "model"))
        if self.statistics == "first_candidate":
            self._attach({i: candidate[0]})
            stds = score.hidden_spread(padding=True)
            self._attach({})
            self.stds = self._of_modules(stds)
        (loss,) = self._losses(score, i, torch.zeros_like(candidate))
        return [Event("untouched_model", {"loss": loss})]

    def _of_modules(self, stds: Sequence[float]) -> list[float]:
        """Return those of the layers that have modules, which need not be all layers.

        Raises:
            UserError: it is not known which of the layers one of the modules is in.
        """
        numbers = [layer_number(layer.name) for layer in self.modules]
        for layer, number in zip(self.modules, numbers, strict=True):
            if number is None or number >= len(stds):
                raise UserError(
                    f"optimizer: {layer.name} is none of the model's {len(stds)} layers whose "
                    "hidden states have statistics; what to do: choose a projection that does not "
                    "need them, or another optimizer"
                )
        return [stds[number] for number in numbers if number is not None]

    @contextmanager
    def _restored_on_failure(self, search: Search) -> Iterator[None]:
        stds, told = self.stds, search.state()
        try:
            yield
        except BaseException:
            self.stds = stds
            search.load_state(told)
            self._attach(self.z | self.shown)
            raise

    def _attach(self, points: Mapping[int, Tensor], without: int | None = None) -> None:
        """Let the model have the modules of these points beside its weights, and no others."""
        U: dict[str, Tensor] = {}
        V: dict[str, Tensor] = {}
        for i in sorted(points.keys() - {without}):
            P = self._modules_at(i, points[i])
            U |= P.U
            V |= P.V
        if U or self._attached:
            all_layers = Subspace(U, V, {})
            self.engine.set_adapter(all_layers, along(all_layers, 1.0))
        self._attached = bool(U)

    def _modules_at(self, i: int, z: Tensor) -> Subspace:
        """Return the modules of one point; those of incumbents are kept from turn to turn."""
        if self.z.get(i) is not z:
            return self.modules[i].at(z[None], self.stds[i])
        if i not in self._kept:
            self._kept[i] = self.modules[i].at(z[None], self.stds[i])
        return self._kept[i]

    def _report(self, turn: int, losses: Sequence[float], events: Sequence[Event]) -> Report:
        round_, i = divmod(turn, len(self.modules))
        good = [loss for loss in losses if isfinite(loss)]
        search = self.searches[i]
        scalars = {
            "layer": i,
            "round": round_,
            "best": min(good),
            "mean": fmean(good),
            "best_ever": search.best_loss,
            **search.numbers(),
            **self.modules[i].spread(self.z[i], self.stds[i]),
        }
        return Report(min(good), forwards=len(losses), scalars=scalars, events=events)


def _refuse_rounding(engine: Engine) -> None:
    """Refuse to search in place beside weights of half precision.

    Every candidate would be added to them and taken away again, which rounds twice. After 20
    populations in bfloat16 the weights are 4 % of their size away from those that stay.

    Raises:
        UserError: the engine would write to such weights.
    """
    if isinstance(engine, InPlace) and any(is_half(x.dtype) for x in engine.X.values()):
        raise UserError(
            "engine.mode: given in_place; allowed: fused, because in half precision the weights "
            "would not be the same after a candidate; or set model.dtype=fp32"
        )


def needs_of_turns(
    budget: int = 0, popsize: int = 1, layers: int = 0, look: Look = "incumbent"
) -> Needs:
    """Return the needs of a method that searches layers in turn.

    A budget of calls pays for whole rounds over the layers. How many steps these are is not known
    before there is a model, and thus layers.

    Raises:
        BadValueError: the budget does not pay for a single round.
    """
    steps = None
    if layers:
        steps = layers * (budget // (popsize * layers))
        if not steps:
            allowed = f"at least {popsize * layers}: {popsize} calls for each of {layers} layers"
            raise bad_value("budget", budget, allowed)
    return Needs(
        directions="low_rank",
        steps=steps,
        batch=Stream(batch_size="all", order="fixed"),
        dev_after_last_step=look == "incumbent",
        any_length=True,
    )
