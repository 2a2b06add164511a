"""From the rows of a task to the token sequences of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lozo_bench.config.checks import check_prompts, class_count
from lozo_bench.config.schema import (
    Config,
    EvaluationConfig,
    Kind,
    Metric,
    Minimize,
    ModelConfig,
    TrainAs,
)
from lozo_bench.data.batch import BatchLayout, ScoringOptions
from lozo_bench.data.sets import Data
from lozo_bench.errors import UserError, bad_value
from lozo_bench.models.capabilities import supports_packed_rows
from lozo_bench.models.check import max_row_tokens, output_layer
from lozo_bench.models.load import Loaded, computed_in
from lozo_bench.models.probes import packs_rows
from lozo_bench.optimizers.base import Needs
from lozo_bench.progress import progress
from lozo_bench.tasks.base import Encoded, Example, Splits, TaskPrompt
from lozo_bench.tasks.causal import CausalPrompt
from lozo_bench.tasks.joined import JoinedPrompt
from lozo_bench.tasks.masked import MaskedPrompt
from lozo_bench.tasks.pair import PairPrompt
from lozo_bench.tasks.shots import demonstrations
from lozo_bench.tuning.base import Tuned

log = logging.getLogger(__name__)

AnyPrompt = MaskedPrompt | CausalPrompt | JoinedPrompt | PairPrompt


def prompt_for(config: Config, loaded: Loaded, virtual_tokens: int) -> AnyPrompt:
    """Return the encoder that turns the task's rows into tokens for this kind of model.

    Rows are no longer than the model can read, together with the tokens that a tuning inserts.

    Raises:
        UserError: the task has no prompt for such a model.
    """
    check_prompts(config, loaded.kind)
    task, tokenizer = config.task, loaded.tokenizer
    max_length = _longest(task.max_length, loaded, virtual_tokens)
    if max_length < task.max_length:
        log.warning(
            "rows are cut to %d tokens instead of task.max_length=%d, the most that %s can read",
            max_length,
            task.max_length,
            loaded.name,
        )
    if loaded.kind is Kind.classifier:
        return PairPrompt(tokenizer, class_count(task), max_length, task.texts)
    masked = loaded.kind is Kind.masked
    text, words = (task.template, task.label_words) if masked else (task.prompt, task.options)
    assert text is not None
    if task.joined:
        return JoinedPrompt(tokenizer, text, words, max_length, masked)
    if masked:
        limits = task.first_sentence_limit, task.other_sentence_limit
        return MaskedPrompt(tokenizer, text, words, max_length, *limits)
    return CausalPrompt(
        tokenizer,
        text,
        words,
        max_length,
        answer=task.answer,
        calibration=task.calibration,
        max_new_tokens=None if task.metric is Metric.perplexity else task.max_new_tokens,
    )


def _longest(wanted: int, loaded: Loaded, virtual_tokens: int) -> int:
    limit = max_row_tokens(loaded.model)
    return wanted if limit is None else min(wanted, limit - virtual_tokens)


def encoded(
    config: Config,
    splits: Splits,
    prompt: AnyPrompt,
    loaded: Loaded,
    tuned: Tuned,
    needs: Needs | None,
    held_out: bool = False,
) -> Data:
    """Return the three sets as tokens, evaluated ones with the demonstrations shown before them.

    Of a task that is held out it is the test set alone.

    Raises:
        UserError: a set is empty, or a row does not fit.
    """
    if splits.fitted is not None:
        if not isinstance(prompt, JoinedPrompt):
            raise bad_value("task.joined", False, "true: the rows are chosen by their lengths")
        splits = splits.fitted(prompt.fits)
    by_tokens = config.task.train_as is TrainAs.language_model
    train = [] if held_out else _encode(prompt, splits.train, "train")
    if by_tokens or (needs and needs.features and isinstance(prompt, CausalPrompt)):
        train = [example.only_gold() for example in train]
    # Without training, dev is not evaluated.
    how = config.evaluation if needs else EvaluationConfig()
    dev = [] if held_out else _evaluated(how, prompt, splits, "dev")
    test = _evaluated(config.evaluation, prompt, splits, "test")
    used = {"train": train, "dev": dev, "test": test} if needs else {"test": test}
    limits = _limits(config, prompt, _longest(config.task.max_length, loaded, tuned.virtual_tokens))
    for split, examples in used.items():
        _tell_cut(split, examples, limits, split != "train" and config.evaluation.shots > 0)
    layout = _layout(config, loaded, tuned, prompt)
    if layout.packed and any(map(_has_long_option, [*train, *dev, *test])):
        layout = replace(layout, packed=_packs_rows(config.model, loaded, tuned))
    task, written = config.task, ""
    if config.objective is Minimize.metric and task.answer is not None:
        written = f"{task.metric.name}, {task.max_new_tokens} tokens"
    return Data(train, dev, test, layout, by_tokens, written)


def _encode(prompt: TaskPrompt, examples: Sequence[Example], split: str) -> list[Encoded]:
    if not examples:
        raise UserError(f"task.source: the {split} set is empty")
    return [prompt.encode(example) for example in progress(examples, f"{split}: to tokens")]


def _limits(config: Config, prompt: AnyPrompt, longest: int) -> str:
    limits: dict[str, int | None] = {"task.max_length": longest}
    if isinstance(prompt, MaskedPrompt):
        limits["task.first_sentence_limit"] = config.task.first_sentence_limit
        limits["task.other_sentence_limit"] = config.task.other_sentence_limit
    return " and ".join(f"{key}={limit}" for key, limit in limits.items() if limit is not None)


def _tell_cut(split: str, examples: Sequence[Encoded], limits: str, shown: bool) -> None:
    """Log how many rows were cut, if any; as a warning if they are at least half of the rows."""
    cut = sum(example.cut for example in examples)
    if cut:
        log.log(
            logging.WARNING if 2 * cut >= len(examples) else logging.INFO,
            "%s: %d of %d rows are longer than %s allows and were cut%s",
            split,
            cut,
            len(examples),
            limits,
            ", the first of their demonstrations first" if shown else "",
        )


def _evaluated(
    config: EvaluationConfig, prompt: TaskPrompt, splits: Splits, split: str
) -> list[Encoded]:
    """Return a set with its demonstrations and calibration texts, as far as the config asks."""
    examples = splits.test if split == "test" else splits.dev
    if not examples or not (config.shots or config.calibrated):
        return _encode(prompt, examples, split)
    shown: Iterable[Sequence[Example]] = [()] * len(examples)
    if config.shots:
        pool = splits.train if splits.pool is None else splits.pool()
        shown = demonstrations(config, pool, len(examples))
        if len(pool) < config.shots:
            log.warning(
                "each row is shown all %d training rows there are, instead of evaluation.shots=%d",
                len(pool),
                config.shots,
            )
    encoded = []
    rows = progress(examples, f"{split}: to tokens")
    for example, before in zip(rows, shown, strict=True):
        asked = prompt.encode(example, before)
        if config.calibrated:
            text_before = before if config.calibrate_shown else ()
            asked = replace(asked, calibration=_calibration(prompt, example, text_before))
        encoded.append(asked)
    return encoded


def _calibration(prompt: TaskPrompt, example: Example, shown: Sequence[Example]) -> Encoded:
    if not isinstance(prompt, CausalPrompt):
        raise UserError(
            "evaluation.calibrated: given true; allowed for causal models: a masked model scores "
            "words at its mask token, and has no text to score them after"
        )
    return prompt.encode_calibration(example, shown)


def _layout(config: Config, loaded: Loaded, tuned: Tuned, prompt: AnyPrompt) -> BatchLayout:
    engine = config.engine
    return BatchLayout(
        pad_id=loaded.tokenizer.pad_token_id,
        label_ids=() if isinstance(prompt, CausalPrompt) else prompt.label_ids,
        scoring=ScoringOptions(
            positions=engine.answer_positions,
            columns=engine.answer_columns and output_layer(loaded.model) is not None,
            share_prompt=engine.share_prompt,
            buckets=engine.buckets,
        ),
        packed=engine.share_prompt
        and tuned.supports_packed_rows
        and supports_packed_rows(loaded.model),
        virtual_tokens=tuned.virtual_tokens,
    )


def _has_long_option(example: Encoded) -> bool:
    return any(len(answer) > 1 for answer in example.answer)


def _packs_rows(config: ModelConfig, loaded: Loaded, tuned: Tuned) -> bool:
    packs = packs_rows(tuned.model, loaded.device, computed_in(config))
    if not packs:
        log.info(
            "%s cannot keep options apart behind one prompt, so each option is a row of its own",
            loaded.name,
        )
    return packs
