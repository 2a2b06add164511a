"""One run from config to ``result.json``: build the parts, train, record.

The order is the order in which mistakes are cheapest to find: config, data, model, training.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from lozo_bench import provenance
from lozo_bench.batches import Layout, Scoring
from lozo_bench.build import build
from lozo_bench.config import Config, Kind, check, check_keys, check_prompts
from lozo_bench.console import ProgressBar, print_summary
from lozo_bench.digest import digest
from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engines import Chosen, engine_for
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.explain import explain
from lozo_bench.models.load import Loaded, load
from lozo_bench.models.locate import model_kind
from lozo_bench.objectives.options import option_scorer, scored, takes_packed_rows
from lozo_bench.optimizers.base import Optimizer, Steps
from lozo_bench.tasks.base import Encoded, Prompt, Source
from lozo_bench.tasks.causal import CausalPrompt
from lozo_bench.tasks.masked import MaskedPrompt
from lozo_bench.tracking import RESULT, Tracker, read_result, write_result
from lozo_bench.trainer import Data, Observer, Outcome, Settings, Trainer, batches

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of choices: its config, typed and plain, its folder and its digest."""

    config: Config
    plain: Mapping[str, Any]
    folder: Path
    digest: str


def run_and_tell(config: DictConfig, folder: Path) -> int:
    """Run one cell and report how it went; the exit code: 0, 1 for a defect, 2 for bad input."""
    try:
        result = run(config, folder)
    except UserError as error:
        log.error("%s", error)
        return 2
    except Exception:
        log.exception("the run failed; everything it wrote is in %s", folder)
        return 1
    print_summary(result, folder)
    return 0


def run(raw: DictConfig, folder: Path) -> dict[str, Any]:
    """Run one cell in ``folder``, unless it is finished, and return its result.

    Raises:
        UserError: bad config, bad data, a model that cannot be had, a loss that is not finite.
    """
    config, plain = typed(raw)
    cell = Cell(config, plain, folder, digest(plain))
    source, steps = _checked(config)
    if config.rerun:
        (folder / RESULT).unlink(missing_ok=True)
    elif (result := read_result(folder, cell.digest)) is not None:
        log.info("already finished; rerun=true runs it again")
        return result
    began = time.perf_counter()
    splits = source.splits()
    loaded = load(config.model)
    prompt = _prompt(config, loaded)
    layout = _layout(config, loaded, prompt)
    scorer = option_scorer(loaded.model, layout.scoring)
    data = Data(
        train=_encode(prompt, splits.train, "train"),
        dev=_encode(prompt, splits.dev, "dev"),
        test=_encode(prompt, splits.test, "test"),
        layout=layout,
    )
    X = {name: x for name, x in loaded.model.named_parameters() if x.requires_grad}
    _log_plan(config, loaded, X, data)
    provenance.reset_peak_memory(loaded.device)
    settings, draws = _settings(config), Draws(config.seed.value)
    chosen = engine_for(
        config.engine, loaded.model, X, steps, draws, config.rank.value,
        lambda: [scored(scorer, part) for part in next(batches(data, settings, loaded.device))],
    )  # fmt: skip
    optimizer: Optimizer = build(config.optimizer, "optimizer", chosen.engine, draws)
    outcome = _train(
        cell,
        lambda observer: Trainer(
            chosen.engine,
            scorer,
            optimizer,
            data,
            settings,
            observer,
            loaded.device,
        ),
    )
    result = _result(cell, outcome, loaded.device, time.perf_counter() - began, chosen)
    write_result(folder, result)
    return result


def typed(raw: DictConfig) -> tuple[Config, dict[str, Any]]:
    """The config as dataclasses, and resolved to plain values.

    Raises:
        UserError: a value is missing or an interpolation leads nowhere.
    """
    try:
        config = OmegaConf.to_object(raw)
        plain = OmegaConf.to_container(raw, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise UserError(explain(error, []) or str(error)) from error
    assert isinstance(config, Config)
    assert isinstance(plain, dict)
    by_name = {str(key): value for key, value in plain.items()}
    check_keys(by_name)
    return config, by_name


def _checked(config: Config) -> tuple[Source, Steps]:
    """Find whatever is wrong before data or model are touched.

    Returns the rows' source, still unread, and the kind of steps the optimizer takes.
    """
    check(config)
    if (kind := model_kind(config.model)) is not None:
        check_prompts(config, kind)
    # On no weights: only checks the options.
    optimizer: Optimizer = build(config.optimizer, "optimizer", InPlace({}), Draws(0))
    source: Source = build(config.task.source, "task.source")
    return source, optimizer.steps


def _prompt(config: Config, loaded: Loaded) -> MaskedPrompt | CausalPrompt:
    check_prompts(config, loaded.kind)
    task = config.task
    if loaded.kind is Kind.masked:
        assert task.template is not None
        return MaskedPrompt(
            loaded.tokenizer,
            task.template,
            task.label_words,
            task.max_length,
            task.first_sentence_limit,
            task.other_sentence_limit,
        )
    assert task.prompt is not None
    return CausalPrompt(loaded.tokenizer, task.prompt, task.options, task.max_length)


def _layout(config: Config, loaded: Loaded, prompt: MaskedPrompt | CausalPrompt) -> Layout:
    return Layout(
        pad_id=loaded.tokenizer.pad_token_id,
        label_ids=prompt.label_ids if isinstance(prompt, MaskedPrompt) else (),
        scoring=_scoring(config),
        packed=takes_packed_rows(loaded.model),
    )


def _encode(prompt: Prompt, examples: list[Any], split: str) -> list[Encoded]:
    if not examples:
        raise UserError(f"task.source: the {split} set is empty")
    return [prompt.encode(example) for example in examples]


def _log_plan(config: Config, loaded: Loaded, X: Mapping[str, Tensor], data: Data) -> None:
    """Say what is about to be spent."""
    log.info(
        "%s on %s: %s parameters in %d tensors, %s, on %s",
        config.model.name,
        config.task.name,
        f"{sum(x.numel() for x in X.values()):,}",
        len(X),
        config.model.dtype.value,
        provenance.device_name(loaded.device),
    )
    log.info(
        "%d train, %d dev, %d test rows; %d steps of %d; options %s",
        len(data.train),
        len(data.dev),
        len(data.test),
        config.steps,
        config.batch_size,
        ", ".join(f"{key}={value}" for key, value in config.optimizer.items() if key[0] != "_"),
    )


class _FilesAndScreen:
    """Passes what the trainer tells on to the files and to the terminal."""

    def __init__(self, tracker: Tracker, bar: ProgressBar) -> None:
        self.tracker, self.bar = tracker, bar
        self.advanced, self.skipped = bar.advanced, bar.skipped

    def stepped(self, row: Mapping[str, float]) -> None:
        self.tracker.row(row)
        self.bar.row(row)

    def evaluated(self, step: int, name: str, metrics: Metrics, forward_passes: int) -> None:
        self.tracker.evaluated(step, name, metrics, forward_passes)
        self.bar.evaluated(step, name, metrics)


def _settings(config: Config) -> Settings:
    return Settings(
        steps=config.steps,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        eval_every=config.eval_every,
        log_every=config.log_every,
        schedule=config.schedule,
        select=config.task.select,
        seed=config.seed.value,
        max_bad_steps=config.engine.max_bad_steps,
    )


def _scoring(config: Config) -> Scoring:
    engine = config.engine
    return Scoring(
        positions=engine.answer_positions,
        columns=engine.answer_columns,
        share_prompt=engine.share_prompt,
        buckets=engine.buckets,
    )


def _train(cell: Cell, trainer: Callable[[Observer], Trainer]) -> Outcome:
    config = cell.config
    name = config.tracking.name or f"{config.task.name}-{config.model.name}-{cell.folder.name}"
    with (
        Tracker(cell.folder, cell.plain, config.tracking, name, cell.digest) as tracker,
        ProgressBar(config.steps) as bar,
    ):
        outcome = trainer(_FilesAndScreen(tracker, bar)).run()
        tracker.summarize({"test_accuracy": outcome.test.accuracy, "best_step": outcome.best_step})
    return outcome


def _result(
    cell: Cell, outcome: Outcome, device: torch.device, elapsed_s: float, chosen: Chosen
) -> dict[str, Any]:
    return {
        "status": "finished",
        "digest": cell.digest,
        "config": dict(cell.plain),
        "metrics": {
            "zero_shot": dataclasses.asdict(outcome.zero_shot),
            "dev": dataclasses.asdict(outcome.dev),
            "test": dataclasses.asdict(outcome.test),
        },
        "best_step": outcome.best_step,
        "steps": cell.config.steps,
        "forwards": outcome.forwards,
        "backwards": outcome.backwards,
        "tokens": outcome.tokens,
        "bad_steps": outcome.bad_steps,
        "engine": chosen.told(),
        "step_ms_median": outcome.step_ms_median,
        "elapsed_s": round(elapsed_s, 3),
        "peak_memory_bytes": provenance.peak_memory_bytes(device),
        "device": provenance.device_name(device),
        "versions": provenance.versions(),
        "git": provenance.git_state(),
    }
