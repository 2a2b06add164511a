"""The rows of a run as tokens: its own if they are on this machine, else of a typical length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import yaml

from lozo_bench.config.schema import Config, Kind, TaskConfig, TrainAs
from lozo_bench.config.several import task_configs
from lozo_bench.data.batch import BatchLayout, ScoringOptions
from lozo_bench.data.encode import prompt_for
from lozo_bench.data.sets import Data
from lozo_bench.estimate.shapes import Shaped
from lozo_bench.models.capabilities import supports_packed_rows
from lozo_bench.models.load import Loaded
from lozo_bench.tasks.base import Encoded
from lozo_bench.tasks.causal import CausalPrompt
from lozo_bench.tasks.invented import invented
from lozo_bench.training.plan import Plan

_TYPICAL = Path(__file__).with_name("typical_rows.yaml")
_FALLBACK = 128  # tokens of a row of a task that is not in the file
# Lengths of rows vary like a lognormal number with this deviation; the longest are three times the
# typical one.
_SPREAD = 0.45
_QUANTILES = 32
_DEFAULT_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of the three sets.

    Args:
        data: the rows, of which only lengths matter if they are made up.
        assumed: what was assumed about them; empty if they are the run's own.
        writes: how many tokens a test row's answer is generated with; 0: none is.
    """

    data: Data
    assumed: str = ""
    writes: int = 0


def rows_of(config: Config, plan: Plan, shaped: Shaped) -> Rows:
    """Return the rows of a run without reading from the hub; of several tasks, all of them."""
    parts = [
        _of_task(name, one, config, plan, shaped) for name, one in task_configs(config).items()
    ]
    if len(parts) == 1:
        return parts[0]
    data = Data(
        train=[row for part in parts for row in part.data.train],
        dev=[row for part in parts for row in part.data.dev],
        test=[row for part in parts for row in part.data.test],
        layout=parts[0].data.layout,
    )
    assumed = ", ".join(dict.fromkeys(part.assumed for part in parts if part.assumed))
    return Rows(data, assumed, max(part.writes for part in parts))


def _of_task(name: str, config: Config, run: Config, plan: Plan, shaped: Shaped) -> Rows:
    loaded, virtual_tokens = shaped.loaded, shaped.tuned.virtual_tokens
    layout = _layout(config, loaded, virtual_tokens)
    task = config.task
    writes = task.max_new_tokens if task.answer and task.metric.value != "perplexity" else 0
    held_out = name in run.task.held_out
    if loaded.tokenizer is not None and (task.invented_rows or is_local(task)):
        prompt = prompt_for(config, loaded, virtual_tokens)
        splits = (
            invented(task, config.seed.value) if task.invented_rows else plan.sources[name].splits()
        )
        if splits.fitted is not None:
            splits = splits.fitted(lambda rows: [True] * len(rows))
        if not isinstance(prompt, CausalPrompt):
            layout = replace(layout, label_ids=tuple(prompt.label_ids))
        train, dev, test = (
            [prompt.encode(row) for row in rows] for rows in (splits.train, splits.dev, splits.test)
        )
        assumed = ""
    else:
        train, dev, test, assumed = _typical(config, shaped)
    if task.train_as is TrainAs.language_model:
        train = [row.only_gold() for row in train]
    return Rows(Data([] if held_out else train, dev, test, layout), assumed, writes)


def is_local(task: TaskConfig) -> bool:
    """Return whether a task's rows are made by this package or lie in a folder of this machine."""
    source = task.source
    if not source.get("hub"):
        return True
    return any(source.get(key) for key in ("data_dir", "full_dir"))


def _layout(config: Config, loaded: Loaded, virtual_tokens: int) -> BatchLayout:
    engine = config.engine
    words = len(config.task.label_words) or 2
    return BatchLayout(
        pad_id=1,
        label_ids=() if loaded.kind is Kind.causal else tuple(range(words)),
        scoring=ScoringOptions(
            engine.answer_positions,
            engine.answer_columns,
            engine.share_prompt,
            engine.buckets,
        ),
        packed=engine.share_prompt and supports_packed_rows(loaded.model),
        virtual_tokens=virtual_tokens,
    )


def _typical(
    config: Config, shaped: Shaped
) -> tuple[list[Encoded], list[Encoded], list[Encoded], str]:
    task, causal = config.task, shaped.loaded.kind is Kind.causal
    facts = _facts().get(task.name.split("_")[0], {})
    longest = min(task.max_length, shaped.row_limit or task.max_length)
    mean = min(facts.get("tokens", _FALLBACK), longest)
    train, dev, test = _counts(task)
    options = 1 if task.answer else len(task.options) or facts.get("options", 2)
    shots = config.evaluation.shots

    def rows(count: int, shown: int = 0) -> list[Encoded]:
        lengths = _lengths(mean, longest)
        return [
            _row(
                min(longest, next(lengths) + shown * mean),
                options if causal else 1,
                facts.get("answer", 1) if causal else 1,
            )
            for _ in range(count)
        ]

    assumed = f"{task.name}: rows of {mean} tokens (typical), {train} train, {dev} dev, {test} test"
    return rows(train), rows(dev, shots), rows(test, shots), assumed


@cache  # there are few different ones
def _row(length: int, options: int, answer: int) -> Encoded:
    start = max(1, length - answer)
    prompt = tuple(range(10, 10 + start))
    places = tuple(range(start, start + answer))
    return Encoded(
        rows=tuple((*prompt, *(5000 + k for _ in places)) for k in range(options)),
        answer=(places,) * options,
        label=0,
    )


def _lengths(mean: int, longest: int) -> Iterator[int]:
    """Yield lengths without end, spread as those of texts are, with this mean."""
    normal = NormalDist(-(_SPREAD**2) / 2, _SPREAD)
    quantiles = [math.exp(normal.inv_cdf((i + 0.5) / _QUANTILES)) for i in range(_QUANTILES)]
    # Neighbours are far from each other, so that each batch has short and long rows.
    while True:
        for i in range(_QUANTILES):
            yield max(3, min(longest, round(mean * quantiles[i * 13 % _QUANTILES])))


def _counts(task: TaskConfig) -> tuple[int, int, int]:
    """Return how many train, dev and test rows a source draws, as far as its options say."""
    source = task.source
    if task.invented_rows:
        return (task.invented_rows,) * 3
    if isinstance(source.get("k"), int):
        drawn = source["k"] * max(2, len(task.label_words))
        return drawn, drawn, _DEFAULT_ROWS
    dev = source.get("num_dev")
    if isinstance(dev, dict):
        dev = dev.get(task.split or "", 100)
    train, test = source.get("num_train"), source.get("num_test")
    numbers = [x if isinstance(x, int) else _DEFAULT_ROWS for x in (train, dev, test)]
    return numbers[0], numbers[1], numbers[2]


@cache
def _facts() -> dict[str, dict[str, Any]]:
    text = _TYPICAL.read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)  # type: ignore[no-untyped-call]
    return found
