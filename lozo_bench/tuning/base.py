"""The interface of a tuning, its result, and functions that several tunings share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lozo_bench.engine.terms import Extras
from lozo_bench.errors import UserError, bad_value
from lozo_bench.models.check import max_row_tokens
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.gates import Gates


@dataclass(frozen=True, slots=True)
class StartBatch:
    """Training rows that a tuning looks at before the first step.

    Attributes:
        input_ids: the rows as a model reads them, with their correct answers, padded, [B, T].
        attention_mask: 1 for tokens and 0 for padding, [B, T].
        losses: returns the rows' losses [B], which can be differentiated.
    """

    input_ids: Tensor
    attention_mask: Tensor
    losses: Callable[[], Tensor]


@dataclass(frozen=True)
class Tuned:
    """A model some of whose parameters are trained.

    Attributes:
        X: the trainable parameters by name, in the model's order. Only they have ``requires_grad``;
            beside an adapter among the extras, only that has it.
        model: the model to call.
        all_weights: whether X are all weights of the model.
        virtual_tokens: how many tokens the model itself puts in front of each row; its logits have
            that many more positions.
        supports_packed_rows: whether 4-dimensional masks with explicit positions still work as in
            the plain model.
        extras: further tensors that the model's function depends on, such as gates.
        beside: whether X does not move: what is searched are low-rank terms beside it.
        layers_pass_one_state: whether a layer gives nothing but a hidden state to the next one, so
            that candidates can skip the layers that they have in common.
        gates: what turns low-rank modules on and off; None: this tuning has no gates.
        start: changes the model in place according to training rows, and returns what is trained
            then, given this object and an epoch of rows; None: nothing depends on rows. It is
            called before anything else uses the model, and again in each attempt of a run: the
            same rows must give the same bits.
        redraw: gives X, in place, the initial values of another draw, given its number; number 0
            is the draw that X was made with. None: the initial values are not random.
    """

    X: dict[str, nn.Parameter]
    model: nn.Module
    all_weights: bool
    virtual_tokens: int = 0
    supports_packed_rows: bool = True
    extras: Extras = field(default_factory=Extras)
    beside: bool = False
    layers_pass_one_state: bool = True
    gates: Gates | None = None
    start: Callable[[Tuned, Iterable[StartBatch]], Tuned] | None = None
    redraw: Callable[[int], None] | None = None


class Tuning(Protocol):
    """A tuning method. Its constructor takes the options and checks their ranges."""

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """Prepare the model in ``loaded`` for training, in place, and return it with its X.

        New parameters are float32, or float64 in a float64 model. Their initial values depend on
        ``draws`` alone, not on torch's generators.

        Raises:
            UserError: this method cannot be used with the model.
        """
        ...


def freeze_rest(
    model: nn.Module, trains: Callable[[str, nn.Parameter], bool]
) -> dict[str, nn.Parameter]:
    """Freeze all parameters except those for which ``trains(name, parameter)`` is true.

    Returns:
        The trainable parameters by name. A parameter with several names (tied weights) appears
        once, under its first name; otherwise it would be perturbed twice.
    """
    X = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trains(name, parameter))
        if parameter.requires_grad:
            X[name] = parameter
    return X


def linear_layers(model: nn.Module, targets: str, key: str) -> dict[str, nn.Module]:
    """Return the linear layers whose names match a regular expression, by name.

    Args:
        model: the model.
        targets: the expression; it is searched for anywhere in the name.
        key: the option that ``targets`` was given as, for the error message.

    Raises:
        UserError: no linear layer matches.
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


def layer_stack(model: PreTrainedModel, option: str) -> list[nn.Module]:
    """Return the layers that a model runs one after another.

    Args:
        model: the model.
        option: what needs the layers, for the error message.

    Raises:
        UserError: the model has no list of as many layers as its config says.
    """
    wanted = getattr(model.config, "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return list(module)
    raise UserError(
        f"{option}: {type(model).__name__} keeps no list of its {wanted} layers, to which anything "
        "could be added; what to do: choose another tuning"
    )


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


def check_room(loaded: Loaded, tokens: int, further: int = 0) -> None:
    """Raise UserError unless virtual tokens leave room for a row in the model.

    Args:
        loaded: the model.
        tokens: the option ``tokens``.
        further: how many tokens of a separator are put into each row as well.
    """
    longest = max_row_tokens(loaded.model)
    if longest is not None and tokens + further >= longest:
        taken = f" beside {further} of a separator" if further else ""
        allowed = f"less than {longest - further}, the most tokens {loaded.name} can read{taken}"
        raise bad_value("tuning.tokens", tokens, allowed)


def draw_words(loaded: Loaded, draws: Draws, role: str, count: int, number: int = 0) -> Tensor:
    """Draw the ids of ``count`` random words of the vocabulary, int64 [count].

    Special tokens are never drawn.

    Args:
        loaded: the model and its tokenizer.
        draws: source of random numbers.
        role: the key of the stream that is drawn from.
        count: how many ids.
        number: of the draw.
    """
    special = set(loaded.tokenizer.all_special_ids)
    words = torch.tensor([i for i in range(len(loaded.tokenizer)) if i not in special])
    indices = draws.uniform_range(role, number, "words", 0, count).double() * len(words)
    return words[indices.long()].to(loaded.device)
