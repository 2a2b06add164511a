"""The shapes of models: what runs with the same model and tuning have in common, found once."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import torch

from lozo_bench.config.checks import class_count
from lozo_bench.config.schema import Config, Dtype, Kind
from lozo_bench.errors import UserError
from lozo_bench.estimate.times import Load
from lozo_bench.estimate.trace import Trace, trace
from lozo_bench.models.check import max_row_tokens, output_layer
from lozo_bench.models.load import Loaded
from lozo_bench.models.meta import load_without_weights
from lozo_bench.randomness.draws import Draws
from lozo_bench.runs import provenance
from lozo_bench.training.plan import Plan
from lozo_bench.tuning.base import Tuned
from lozo_bench.tuning.full import Full
from lozo_bench.tuning.prefix import Prefix
from lozo_bench.tuning.prompt import Prompt
from lozo_bench.tuning.start import tune

# Keys of the model that do not change its shapes.
_NOT_SHAPE = ("device", "device_map", "autocast", "gradient_checkpointing", "adapter")


@dataclass(frozen=True, slots=True)
class Shaped:
    """A model on the meta device, prepared for training.

    Args:
        loaded: the model.
        tuned: what is trained of it.
        weights: the bytes of all weights and buffers.
        load: what a token costs.
        row_limit: the most tokens that a row can have; None: there is no limit.
    """

    loaded: Loaded
    tuned: Tuned
    weights: float
    load: Load
    row_limit: int | None


@dataclass
class Shapes:
    """Models on the meta device and traces of their passes, each made once."""

    _shaped: dict[str, Shaped] = field(default_factory=dict)
    _traces: dict[str, Trace] = field(default_factory=dict)

    def of(self, config: Config, plan: Plan) -> Shaped:
        """Return the model of a run.

        Raises:
            UserError: its shapes are not known, or its tuning needs more than shapes.
        """
        key = _key(config) + json.dumps(config.tuning, default=str)
        if key not in self._shaped:
            classes = class_count(config.task)
            loaded, tuned = _tune(config, plan, load_without_weights(config.model, classes))
            limit = max_row_tokens(loaded.model)
            self._shaped[key] = Shaped(loaded, tuned, _bytes(tuned), _load(tuned), limit)
        return self._shaped[key]

    def trace(self, config: Config, plan: Plan, *, gradient: bool, dropout: bool) -> Trace:
        """Return what a pass through the model of a run does."""
        loaded = self.of(config, plan).loaded
        key = f"{_key(config)}{gradient}{dropout}"
        if gradient or not isinstance(plan.tuning, Full | Prefix | Prompt):
            key += json.dumps(config.tuning, default=str)  # others leave the passes as they are
        if key not in self._traces:
            self._traces[key] = trace(loaded, gradient, dropout)
        found = self._traces[key]
        if config.model.autocast is not None:
            found = Trace(found.peak / 2, found.kept / 2, found.operations)
        if gradient and config.model.gradient_checkpointing:
            found = _checkpointed(found, loaded)
        return found


def _key(config: Config) -> str:
    """Return what decides the shapes of a model without its tuning."""
    values = dataclasses.asdict(config.model)
    for name in _NOT_SHAPE:
        values.pop(name)
    values["dtype"] = "fp32" if config.model.dtype is Dtype.fp32 else "half"
    if config.model.kind in (Kind.auto, Kind.classifier):
        values["classes"] = class_count(config.task)
    return json.dumps(values, default=str)


def _tune(config: Config, plan: Plan, loaded: Loaded) -> tuple[Loaded, Tuned]:
    tuning, model = plan.tuning, loaded.model
    if isinstance(tuning, Prefix | Prompt):
        model.requires_grad_(False)
        return loaded, _virtual(tuning, loaded)
    try:
        return tune(tuning, loaded, Draws(config.seed.value))
    except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
        name = type(tuning).__name__
        raise UserError(
            f"tuning: {name} cannot be estimated without the model's weights or its tokenizer "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error


def _virtual(tuning: Prefix | Prompt, loaded: Loaded) -> Tuned:
    """Return what a prefix or a prompt trains: its start needs the tokenizer, its shapes do not."""
    config: Any = loaded.model.config
    width = config.hidden_size
    if isinstance(tuning, Prompt):
        shapes = {"soft_prompt.words": (tuning.tokens, width)}
    else:
        heads = config.num_attention_heads
        share = (getattr(config, "num_key_value_heads", None) or heads) / heads
        shapes = {
            f"{layer}.prefix.{kind}": (tuning.tokens, round(width * share))
            for layer in range(config.num_hidden_layers)
            for kind in ("keys", "values")
        }
    X = {
        name: torch.nn.Parameter(torch.empty(shape, device="meta", dtype=torch.float32))
        for name, shape in shapes.items()
    }
    virtual = tuning.tokens if isinstance(tuning, Prompt) else 0
    return Tuned(X, loaded.model, all_weights=False, virtual_tokens=virtual)


def _checkpointed(full: Trace, loaded: Loaded) -> Trace:
    """Keep what enters each layer, and all of the one layer that is recomputed."""
    config: Any = loaded.model.config
    entering = config.num_hidden_layers * config.hidden_size * loaded.model.dtype.itemsize
    kept = entering + full.kept / config.num_hidden_layers
    return Trace(full.peak, min(full.kept, kept), full.operations)


def _bytes(tuned: Tuned) -> float:
    tensors = {id(x): x for x in (*tuned.model.parameters(), *tuned.model.buffers())}
    tensors |= {id(x): x for x in tuned.X.values()}
    return float(sum(x.nbytes for x in tensors.values()))


def _load(tuned: Tuned) -> Load:
    matrices = [x for x in tuned.X.values() if x.ndim >= 2]
    model: Any = tuned.model
    head, config = output_layer(model), model.config
    return Load(
        multiplied=provenance.flops(tuned.model, 1, 0) / 2,
        heights=sum(len(x) for x in matrices),
        widths=sum(x[0].numel() for x in matrices),
        width=config.hidden_size if head is None else head.weight.shape[1],
    )
