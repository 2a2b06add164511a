"""How far the hidden states that enter a model's layers spread.

The standard deviation is that of all numbers of all hidden states of a batch, in which outliers are
moved closer to the mean again and again. Nothing is stored: each round is one more forward pass,
which adds up counts, sums and sums of squares, and several processes add up theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lozo_bench.engine.finite import STOPPED, bounded, raise_if_stopped
from lozo_bench.engine.layers import Arguments, Layers, Options, hidden_state, named_arguments
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.errors import Stopped, UserError

# The sum of a vector over all processes, see `Sharing.totals`.
Totals = Callable[[Tensor], Tensor]


def hidden_spread(
    model: nn.Module,
    parts: Sequence[MicroBatch],
    totals: Totals,
    padding: bool,
    clip: float,
    rounds: int,
) -> Tensor:
    """Return the standard deviations, float64 [L]; see `Score.hidden_spread`.

    Args:
        model: it computes with the weights' full value.
        parts: this process's rows.
        totals: adds up a vector over all processes.
        padding: whether positions that are padding count.
        clip: the largest distance from the mean, in standard deviations.
        rounds: how often what is farther away is moved to that distance.

    Raises:
        UserError: the model has no stack of layers, or no word embeddings.
        Stopped: a process was asked to stop.
    """
    layers = Layers(model)

    def watch() -> Tensor:
        for part in parts[:1]:
            if not layers.watch(partial(part.losses, 1)):
                raise _no_stack(model)
        return torch.tensor([len(layers), len(parts[:1])], dtype=torch.float64)

    known, watching = _shared(watch, 2, totals).tolist()
    L = round(known / watching)  # a process without rows cannot watch a pass
    limits = torch.tensor([[-torch.inf, torch.inf]], dtype=torch.float64).repeat(L - 1, 1)
    embeddings = _moments(_shared(lambda: _sums_of_embeddings(model), 3, totals)[None])
    for done in range(rounds + 1):
        adding = _Adding(model, layers.modules[1:], limits, padding)
        sums = _shared(lambda adding=adding: adding.over(parts), 3 * (L - 1), totals)  # type: ignore[misc]
        mean, std = _moments(sums.view(L - 1, 3)).unbind(1)
        if done < rounds:
            # Both limits of a round lie within those of the round before, or do not matter.
            now = torch.stack([mean - clip * std, mean + clip * std], dim=1)
            limits[:, 0] = torch.maximum(limits[:, 0], now[:, 0])
            limits[:, 1] = torch.minimum(limits[:, 1], now[:, 1])
    return torch.cat([embeddings[:, 1], std])


class _Adding:
    """Adds up the counts, sums and sums of squares of what enters some layers.

    Args:
        model: the model.
        layers: the layers.
        limits: the smallest and the largest number that counts, [layers, 2]; a number beyond
            them counts as the closest of both.
        padding: whether positions that are padding count.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[nn.Module], limits: Tensor, padding: bool
    ) -> None:
        self.model, self.layers, self.limits, self.padding = model, layers, limits, padding
        self.sums = torch.zeros(len(limits), 3, dtype=torch.float64)
        self._real: Tensor | None = None

    def over(self, parts: Sequence[MicroBatch]) -> Tensor:
        """Return the flattened sums of all rows."""
        with self._hooks():
            for part in parts:
                part.losses(1)
        return self.sums.flatten()

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        def sees_mask(module: nn.Module, args: Arguments, options: Options) -> None:
            mask = named_arguments(module, args, options).get("attention_mask")
            self._real = None if mask is None or self.padding else real_positions(mask)

        # The last hook before the model sees what other hooks have put in front of the rows.
        hooks = [self.model.register_forward_pre_hook(sees_mask, with_kwargs=True)]
        try:
            for i, layer in enumerate(self.layers):
                hooks.append(
                    layer.register_forward_pre_hook(
                        self._adds_to(i), prepend=True, with_kwargs=True
                    )
                )
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _adds_to(self, i: int) -> Callable[[nn.Module, Arguments, Options], None]:
        low, high = self.limits[i].tolist()

        def adds(module: nn.Module, args: Arguments, options: Options) -> None:
            states: Tensor = hidden_state(args, options)
            if self._real is not None:
                states = states[self._real.to(states.device)]
            self.sums[i] += _sums(states.double().clamp_(low, high))

        return adds


def real_positions(mask: Tensor) -> Tensor:
    """Return which positions are not padding, boolean [rows, T], given an attention mask.

    Args:
        mask: [rows, T], not 0 for a real position; or [rows, 1, T, T], boolean (true where a
            position is attended to) or added to the attention scores. Then a position is real if
            it attends to itself.
    """
    if mask.ndim == 2:
        return mask.bool()
    itself = mask[:, 0].diagonal(dim1=-2, dim2=-1)
    return itself if mask.dtype is torch.bool else itself == 0


def _sums_of_embeddings(model: Any) -> Tensor:
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    if embeddings is None:
        raise _no_stack(model)
    pieces = embeddings.weight.detach().split(4096)
    return torch.stack([_sums(piece.double()) for piece in pieces]).sum(0)


def _sums(x: Tensor) -> Tensor:
    """Return the count, the sum and the sum of squares, float64 [3] on the CPU."""
    return torch.stack([x.new_tensor(x.numel()), x.sum(), x.square().sum()]).cpu()


def _moments(sums: Tensor) -> Tensor:
    """Return means and standard deviations [n, 2] from counts, sums and sums of squares [n, 3]."""
    mean, square = (sums[:, 1:] / sums[:, :1]).unbind(1)
    return torch.stack([mean, (square - mean**2).clamp(min=0).sqrt()], dim=1)


def _shared(find: Callable[[], Tensor], size: int, totals: Totals) -> Tensor:
    """Return the totals of what every process finds, [size]; raise Stopped if one was stopped."""
    try:
        found = bounded(find())
    except Stopped:
        found = torch.full((size,), STOPPED, dtype=torch.float64)
    total = totals(found)
    raise_if_stopped(total)
    return total


def _no_stack(model: nn.Module) -> UserError:
    return UserError(
        f"optimizer: {type(model).__name__} has no word embeddings or no stack of layers that pass "
        "one hidden state on, so its hidden states have no statistics; what to do: choose a "
        "projection that does not need them, or another optimizer"
    )
