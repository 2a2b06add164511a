"""What would make a run fit that has no room."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import yaml

from lozo_bench.config.paths import CONF
from lozo_bench.config.schema import Config, Dtype
from lozo_bench.errors import UserError
from lozo_bench.estimate.cards import LARGER, card
from lozo_bench.estimate.cell import Estimate, Estimator
from lozo_bench.training.plan import plan_run

_MOST_CARDS = 8
_LOZO = {
    "_target_": "lozo_bench.optimizers.lozo.Lozo", "lr": 1e-6, "eps": 1e-3, "rank": 2, "nu": 50,
}  # fmt: skip


def ways_to_fit(config: Config, found: Estimate, estimator: Estimator) -> list[str]:
    """Return the changes of which each makes the run fit, with the memory that it then needs."""
    ways: list[tuple[str, Estimate]] = []
    for text, changed in _changes(config, found):
        try:
            then = estimator.estimate(changed)
        except UserError:
            continue
        if then.fits and not any(text.startswith(earlier + " ") for earlier, _ in ways):
            ways.append((text, then))
    return [f"{text} ({then.memory.peak / 2**30:.3g} GiB)" for text, then in ways]


def _changes(config: Config, found: Estimate) -> Iterator[tuple[str, Config]]:
    """Yield changes on the same card, the mildest first, and then more or larger cards."""
    needs = plan_run(config).needs
    gradient = needs is not None and needs.gradient
    smaller = _smaller_batch(config)
    model = config.model
    halved = dataclasses.replace(config, model=dataclasses.replace(model, dtype=Dtype.bf16))
    if model.dtype is Dtype.fp32 and model.autocast is None:
        yield "model.dtype=bf16", halved
    if smaller is not None:
        yield "micro_batch_size=1", smaller
        yield (
            "micro_batch_size=1 eval_batch_size=1",
            dataclasses.replace(smaller, eval_batch_size=1),
        )
    if gradient and not model.gradient_checkpointing:
        kept = dataclasses.replace(model, gradient_checkpointing=True)
        yield "model.gradient_checkpointing=true", dataclasses.replace(config, model=kept)
    if gradient:
        plain = dataclasses.replace(model, autocast=None, gradient_checkpointing=False)
        forward_only = dataclasses.replace(config, model=plain, optimizer=dict(_LOZO))
        lora = dataclasses.replace(config, tuning=_file("tuning/lora"))
        yield "tuning=lora", lora
        yield "optimizer=lozo", forward_only
        half = dataclasses.replace(plain, dtype=Dtype.bf16)
        if model.dtype is Dtype.fp32:
            yield "optimizer=lozo model.dtype=bf16", dataclasses.replace(forward_only, model=half)
    yield from _more_cards(config, found)


def _more_cards(config: Config, found: Estimate) -> Iterator[tuple[str, Config]]:
    for name in LARGER:
        if card(name).memory > found.card.memory or found.card.is_cpu:
            node = dataclasses.replace(config.estimate, card=name, cards=1)
            yield f"estimate.card={name}", dataclasses.replace(config, estimate=node)
    if found.card.is_cpu:
        return
    count = max(2, math.ceil(found.memory.peak / found.card.memory))
    if count <= _MOST_CARDS:
        node = dataclasses.replace(config.estimate, cards=count)
        spread = dataclasses.replace(config.model, device_map="auto")
        text = f"model.device_map=auto estimate.cards={count}"
        yield text, dataclasses.replace(config, estimate=node, model=spread)


def _smaller_batch(config: Config) -> Config | None:
    size = config.micro_batch_size or config.batch_size
    return dataclasses.replace(config, micro_batch_size=1) if size > 1 else None


def _file(name: str) -> dict[str, Any]:
    text = (CONF / f"{name}.yaml").read_text(encoding="utf-8")
    node: dict[str, Any] = yaml.safe_load(text)  # type: ignore[no-untyped-call]
    return node
