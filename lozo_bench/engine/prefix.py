"""Compute once what candidates have in common: the layers below the first one that they change.

If candidates differ only in layer i and above, the hidden state that enters layer i is the same for
all of them. It is computed once for a micro-batch, with one copy of its rows and at the weights.
The forward passes of the candidates skip the layers below i and start from it. The state is kept:
as long as nothing below layer i changes, candidates of a later layer j only need the layers from i
to j - 1 to be run once. Candidates that change only a final norm or the head skip all layers.

This is exact for a model whose layers pass on nothing but one hidden state. Models whose layers
visibly pass on more (see `layers.py`) run as before, and so does a model whose first loss differs
from that of a plain forward pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lozo_bench.engine.layers import Layers
from lozo_bench.engine.partial_pass import OtherPassError, ReachedError, entering, stopping
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.terms import Extras

log = logging.getLogger(__name__)


class Prefix:
    """The hidden states of the newest micro-batches, and forward passes that start from them.

    Args:
        model: the model; None: nothing is reused.
        X: the weights that change, by name.
        extras: further tensors that the model's function depends on.
        enabled: whether anything is reused.
    """

    def __init__(
        self, model: nn.Module | None, X: Mapping[str, Tensor], extras: Extras, enabled: bool = True
    ) -> None:
        self.X, self.extras = X, extras
        self._layers = Layers(model) if model is not None and enabled else None
        self._kept: dict[Hashable, _Kept] = {}
        self._compared = False

    def changed(self, names: Iterable[str] | None = None) -> None:
        """Forget the states that depend on these weights; None: all states."""
        if self._kept:
            first = None if names is None or self._layers is None else self._first(names)
            self._kept = {
                key: kept
                for key, kept in self._kept.items()
                if first is not None and kept.layer <= first
            }

    def shortened(
        self,
        parts: Sequence[MicroBatch],
        names: Collection[str],
        candidates: int,
        applied: Callable[[], AbstractContextManager[None]],
        score_first: Callable[[MicroBatch], Tensor],
    ) -> Sequence[MicroBatch]:
        """Return the micro-batches with losses that skip the layers below those of the candidates.

        Args:
            parts: the batch, in micro-batches.
            names: the weights in which the candidates differ from the weights and one another.
            candidates: how many of them will be scored.
            applied: a context in which calling the model uses the weights' full value, at least
                below the first layer that the candidates change.
            score_first: returns the losses of the first candidate on the first of the
                micro-batches, given the micro-batch.
        """
        first = self._first_to_run(parts, names, candidates)
        before = {part.key: self._valid(part.key) for part in parts}
        self._kept = {key: kept for key, kept in before.items() if kept is not None}
        if first < 1:
            return parts
        states = []
        try:
            with torch.inference_mode():
                for part in parts:
                    kept = before[part.key] if part.key is not None else None
                    states.append(self._entering(part, first, kept, candidates, applied))
                if not self._compared and states[0] is not None:
                    self._compare(parts[0], states[0], applied, score_first)
        except OtherPassError as error:
            self._switch_off(str(error))
        if self._layers is None:
            return parts
        return [
            part if kept is None else self._short(part, kept)
            for part, kept in zip(parts, states, strict=True)
        ]

    def _entering(
        self,
        part: MicroBatch,
        layer: int,
        kept: _Kept | None,
        candidates: int,
        applied: Callable[[], AbstractContextManager[None]],
    ) -> _Kept | None:
        """Return the state that enters a layer, and keep it; None if that would save nothing."""
        if kept is not None and kept.layer > layer:
            kept = None
        if kept is None and candidates == 1:
            return None
        if kept is None or kept.layer < layer:
            with applied():
                start = nullcontext() if kept is None else _start(self._known, kept)
                state = self._reached(part, layer, start)
            kept = _Kept(layer, state, self._stamp(layer))
        if part.key is not None:
            self._kept[part.key] = kept
        return kept

    def _first_to_run(
        self, parts: Sequence[MicroBatch], names: Collection[str], candidates: int
    ) -> int:
        """Return the first layer that candidates differ in; 0 if nothing can be skipped."""
        layers = self._layers
        if layers is None or not parts or not layers.may_follow_others(names):
            return 0
        if not layers.watched:
            if candidates == 1:
                return 0
            with torch.inference_mode():
                found = layers.watch(lambda: parts[0].losses(1))
            if not found:
                self._switch_off("has no stack of layers that pass one hidden state on")
        return self._first(names) if layers.modules else 0

    def _first(self, names: Iterable[str]) -> int:
        first = None if self._layers is None else self._layers.first_changed(names)
        return 0 if first is None else max(first, 0)

    @property
    def _known(self) -> Layers:
        assert self._layers is not None
        return self._layers

    def _valid(self, key: Hashable) -> _Kept | None:
        """Return what is kept for these rows, unless a weight was written to by somebody else."""
        kept = self._kept.get(key)
        return kept if kept is not None and kept.stamp == self._stamp(kept.layer) else None

    def _stamp(self, layer: int) -> tuple[int, ...]:
        """Return how often each tensor that the input of this layer depends on was written to."""
        below = [x for name, x in self.X.items() if self._first([name]) < layer]
        return tuple(x._version for x in (*below, *self.extras.tensors.values()))

    def _reached(self, part: MicroBatch, layer: int, start: AbstractContextManager[None]) -> Tensor:
        """Run the model on one copy of the rows until the hidden state enters this layer."""
        try:
            with start, stopping(self._known, layer):
                part.losses(1)
        except ReachedError as reached:
            return reached.state
        raise OtherPassError("does not run through its layers for every loss")

    def _short(self, part: MicroBatch, kept: _Kept) -> MicroBatch:
        def losses(copies: int) -> Tensor:
            if self._layers is None:
                return part.losses(copies)
            try:
                with _start(self._layers, kept, copies):
                    return part.losses(copies)
            except OtherPassError as error:
                self._switch_off(str(error))
                return part.losses(copies)

        return replace(part, losses=losses, inputs=None)

    def _compare(
        self,
        part: MicroBatch,
        kept: _Kept,
        applied: Callable[[], AbstractContextManager[None]],
        score_first: Callable[[MicroBatch], Tensor],
    ) -> None:
        """Compare the losses of the first candidate with those of a plain forward pass.

        Before, the skipped layers see another hidden state. If they left anything else behind for
        the later layers, it is wrong from now on, as it would be after other rows.
        """
        with applied():
            first = self._reached(part, 0, nullcontext())
            self._reached(part, kept.layer, entering(self._known, 0, first.flip(0, -1)))
        short, full = score_first(self._short(part, kept)), score_first(part)
        if not full.isfinite().all():
            return
        self._compared = True
        difference = float((short - full).abs().max())
        tolerance = 8 * torch.finfo(torch.float32).eps * (1 + float(full.abs().max()))
        if not difference <= tolerance:
            self._switch_off(
                "has layers that share more than the hidden state: a loss changes by "
                f"{difference:.1e} when the layers that the candidates do not change are skipped"
            )

    def _switch_off(self, why: str) -> None:
        if self._layers is not None:
            log.info(
                "engine.reuse_prefix: every candidate runs through all layers: %s %s",
                type(self._layers.model).__name__,
                why,
            )
        self._layers, self._kept = None, {}


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """The hidden state that enters a layer, one copy of the rows, and what it depends on."""

    layer: int
    state: Tensor
    stamp: tuple[int, ...]


def _start(layers: Layers, kept: _Kept, copies: int = 1) -> AbstractContextManager[None]:
    """Return a context in which the model starts from what is kept.

    It gets a copy, because a layer may overwrite what it is given.
    """
    return entering(layers, kept.layer, kept.state.repeat(copies, 1, 1))
