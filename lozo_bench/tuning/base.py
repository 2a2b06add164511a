"""What every tuning is given, and what it gives back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.terms import Extras
from lozo_bench.errors import bad_value
from lozo_bench.models.check import longest_row
from lozo_bench.models.load import Loaded


@dataclass(frozen=True)
class Tuned:
    """A model of which some parameters move.

    ``X`` are those that do, by name and in the model's order; they alone have ``requires_grad``.
    ``model`` is what is called. ``whole`` says that X are all weights. ``virtual_tokens`` stand in
    front of each row inside the model: its logits have so many positions more. ``packs`` says that
    4-dimensional masks with explicit positions still do what they do in the plain model. ``extras``
    are further tensors that the model's function depends on, such as gates.
    """

    X: dict[str, nn.Parameter]
    model: nn.Module
    whole: bool
    virtual_tokens: int = 0
    packs: bool = True
    extras: Extras = field(default_factory=Extras)


class Tuning(Protocol):
    """A way to tune. Its constructor takes options and checks their ranges."""

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """Say what moves; the model in ``loaded`` is changed for it.

        New parameters are float32, or float64 in a float64 model, and start from ``draws`` alone.

        Raises:
            UserError: the model has nothing that could move so.
        """
        ...


def moving(model: nn.Module, moves: Callable[[str, nn.Parameter], bool]) -> dict[str, nn.Parameter]:
    """Freeze all parameters but those that ``moves(name, parameter)`` picks, which are returned.

    A parameter of several names (tied weights) has its first one (spec lozo_mezo, T7).
    """
    X = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(moves(name, parameter))
        if parameter.requires_grad:
            X[name] = parameter
    return X


def linear_layers(model: nn.Module, targets: str, key: str) -> dict[str, nn.Module]:
    """The linear layers in whose name the regular expression is found, by name.

    Raises:
        UserError: there are none; ``key`` is the option that says ``targets``.
    """
    layers: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }
    found = {name: layer for name, layer in layers.items() if re.search(targets, name)}
    if not found:
        raise bad_value(
            f"tuning.{key}", targets, f"part of a linear layer's name, such as {next(iter(layers))}"
        )
    return found


def check_pattern(key: str, pattern: str) -> None:
    """Raise BadValueError unless ``pattern`` is a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise bad_value(key, pattern, f"a regular expression ({error})") from error


def check_tokens(tokens: int) -> None:
    """Raise BadValueError unless ``tokens`` >= 1."""
    if tokens < 1:
        raise bad_value("tokens", tokens, "a whole number >= 1")


def check_room(loaded: Loaded, tokens: int) -> None:
    """Raise UserError unless the model can read rows behind so many tokens."""
    longest = longest_row(loaded.model)
    if longest is not None and tokens >= longest:
        raise bad_value(
            "tuning.tokens", tokens, f"less than {longest}, the longest row {loaded.name} can read"
        )


def drawn_words(loaded: Loaded, draws: Draws, role: str, count: int) -> Tensor:
    """Ids of random words of the vocabulary, int64 [count]; special tokens are none."""
    special = set(loaded.tokenizer.all_special_ids)
    words = torch.tensor([i for i in range(len(loaded.tokenizer)) if i not in special])
    places = draws.uniform_range(role, 0, "words", 0, count).double() * len(words)
    return words[places.long()].to(loaded.device)
