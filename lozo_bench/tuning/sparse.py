"""SPEFT: a few entries of the weights are trained; a score of salience chooses which.

Source: Liu et al., "Refining salience-aware sparse fine-tuning strategies for language models",
arXiv 2412.13488. With a fixed mask tau of zeros and ones, a weight W becomes

    (1)  W + tau * S,   tau = 1 where the score is among the largest, S = 0 at the start

and only the entries of S where tau is 1 exist. Scores, with g the mean gradient over examples:

    gradient    |g|
    snip        |g W|
    force       -g W
    taylor      (g W)^2
    fisher      the mean over examples of their own gradients' squares
    magnitude   |W|, which needs no gradient

``group=global`` ranks the entries of all layers together, ``layer`` gives each layer the same
density. The mask stays as it is: in the paper, masks that are computed again during training did
not help. Its GRaSP and SynFlow scores are not here; they were worse than the gradient on all tasks.

In half precision each sum W + tau * S is rounded, while S itself is float32.

Scores take as much memory as the gradient of the chosen layers, once, before the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lozo_bench.engine.tensors import wide
from lozo_bench.engine.terms import Extras
from lozo_bench.errors import UserError, bad_value
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import StartBatch, Tuned, check_pattern, freeze_rest, linear_layers

Salience = Literal["gradient", "snip", "force", "taylor", "fisher", "magnitude"]


class Sparse:
    """Train chosen entries of matrices.

    Args:
        density: which share of the entries is trained.
        targets: a regular expression; the linear layers whose names match are trained.
        score: what chooses the entries.
        group: among which entries: of all layers together, or of each layer.
        examples: the mean gradient is over so many training rows, or all if there are fewer.
    """

    def __init__(
        self,
        *,
        density: float,
        targets: str,
        score: Salience = "gradient",
        group: Literal["global", "layer"] = "global",
        examples: int = 1024,
    ) -> None:
        check_pattern("targets", targets)
        if not 0 < density <= 1:
            raise bad_value("density", density, "a number above 0 and up to 1")
        if examples < 1:
            raise bad_value("examples", examples, "a whole number >= 1")
        self.density, self.targets, self.score = density, targets, score
        self.group, self.examples = group, examples

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`. Until rows were seen, the largest weights are chosen."""
        layers = linear_layers(loaded.model, self.targets, "targets")
        weights = {name: layer.get_parameter("weight") for name, layer in layers.items()}
        _check_not_shared(loaded.model, weights)
        scores = {name: W.detach().abs() for name, W in weights.items()}
        tuned = Tuned({}, loaded.model, all_weights=False)
        start = None if self.score == "magnitude" else partial(self._start, layers)
        return replace(self._masked(tuned, layers, scores), start=start)

    def _start(
        self, layers: Mapping[str, nn.Module], tuned: Tuned, batches: Iterable[StartBatch]
    ) -> Tuned:
        take_masks_out(tuned.model)
        weights = {name: layer.get_parameter("weight") for name, layer in layers.items()}
        scores = _salience(self.score, weights, batches, self.examples)
        return self._masked(tuned, layers, scores)

    def _masked(
        self, tuned: Tuned, layers: Mapping[str, nn.Module], scores: Mapping[str, Tensor]
    ) -> Tuned:
        """Return what is trained if the entries with the largest scores are."""
        others = {id(x) for name, x in tuned.X.items() if _VALUES not in name}
        places = _largest(scores, self.density, self.group == "global")
        for name, layer in layers.items():
            if len(places[name]):
                delta = Delta(places[name], layer.get_parameter("weight"))
                parametrize.register_parametrization(layer, "weight", delta)
        X = freeze_rest(tuned.model, lambda name, x: _VALUES in name or id(x) in others)
        return replace(tuned, X=X, extras=Extras({f"places/{n}": x for n, x in places.items()}))


_VALUES = ".parametrizations.weight.0.values"


class Delta(nn.Module):
    """Adds trained values to some entries of a weight.

    Args:
        places: the indices of these entries in the flattened weight, int64.
        weight: the weight.
    """

    def __init__(self, places: Tensor, weight: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(
            torch.zeros(len(places), dtype=wide(weight.dtype), device=weight.device)
        )
        self.register_buffer("places", places)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with the values added, in its own dtype."""
        flat = weight.flatten().to(self.values.dtype)
        return flat.index_add(0, self.get_buffer("places"), self.values).to(weight).view_as(weight)


def take_masks_out(model: nn.Module) -> None:
    """Write the sparse changes into the weights of a model, if it has any."""
    for layer in list(model.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            layer.get_parameter("weight").requires_grad_(False)


def _salience(
    score: Salience, weights: Mapping[str, nn.Parameter], batches: Iterable[StartBatch], most: int
) -> dict[str, Tensor]:
    """Return the score of each entry, from up to ``most`` rows."""
    squared = score == "fisher"
    sums = {name: torch.zeros_like(W, dtype=wide(W.dtype)) for name, W in weights.items()}
    seen = 0
    for W in weights.values():
        W.requires_grad_(True)
    for batch in batches:
        losses = batch.losses()[: most - seen]
        for loss in losses if squared else [losses.sum()]:
            found = torch.autograd.grad(loss, list(weights.values()), retain_graph=squared)
            for total, g in zip(sums.values(), found, strict=True):
                total += g.to(total.dtype).square() if squared else g
        seen += len(losses)
        if seen >= most:
            break
    for W in weights.values():
        W.requires_grad_(False)
    scores = {
        name: _SCORES[score](total / seen, weights[name].detach()) for name, total in sums.items()
    }
    for name, x in scores.items():
        if not x.isfinite().all():
            raise UserError(
                f"tuning.score: the {score} score of {name} is not finite; what to do: "
                "model.dtype=fp32, or tuning.score=magnitude"
            )
    return scores


_SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradient": lambda g, W: g.abs(),
    "snip": lambda g, W: (g * W).abs(),
    "force": lambda g, W: -g * W,
    "taylor": lambda g, W: (g * W).square(),
    "fisher": lambda squares, W: squares,
}


def _largest(scores: Mapping[str, Tensor], density: float, together: bool) -> dict[str, Tensor]:
    """Return the indices of the entries with the largest scores in each flattened matrix.

    Of equal scores at the limit, those count that come first.
    """
    flat = {name: x.detach().flatten() for name, x in scores.items()}
    groups: Sequence[Sequence[str]] = [list(flat)] if together else [[name] for name in flat]
    places: dict[str, Tensor] = {}
    for group in groups:
        x = torch.cat([flat[name].cpu() for name in group])
        k = max(1, round(density * len(x)))
        limit = x.topk(k).values[-1]
        mask = x > limit
        mask[(x == limit).nonzero()[: k - int(mask.sum()), 0]] = True
        owns = torch.split(mask, [len(flat[name]) for name in group])
        for name, own in zip(group, owns, strict=True):
            places[name] = own.nonzero()[:, 0].to(flat[name].device)
    return places


def _check_not_shared(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
    """Refuse a layer whose weight another module has, too, which would not be changed."""
    names: dict[int, list[str]] = {}
    for name, x in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(x), []).append(name)
    for name, W in weights.items():
        if len(names[id(W)]) > 1:
            other = next(each for each in names[id(W)] if each != f"{name}.weight")
            raise UserError(
                f"tuning.targets: {name} is tied to {other}; what to do: model.untie_head=true, or "
                "targets that leave it out"
            )
