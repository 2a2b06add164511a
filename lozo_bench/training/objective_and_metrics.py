"""Which objective a run minimizes, and with which metrics its sets are evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from lozo_bench.config.schema import Config, LossKind, Metric, Minimize, Select
from lozo_bench.data.sets import Data
from lozo_bench.evaluation import metrics
from lozo_bench.evaluation.drop import drop_official_em, drop_official_f1
from lozo_bench.evaluation.evaluate import Evaluator
from lozo_bench.evaluation.evaluators import (
    ClassMetric,
    GenerationEvaluator,
    LossEvaluator,
    OptionEvaluator,
)
from lozo_bench.models.load import Loaded, computed_in
from lozo_bench.objectives.features import answer_features
from lozo_bench.objectives.generation import GenerationObjective, Generator, TextMetric
from lozo_bench.objectives.losses import (
    Hinge,
    Loss,
    Objective,
    OptionObjective,
    classification,
    language_model,
    minus_accuracy,
)
from lozo_bench.objectives.options import Scorer
from lozo_bench.tuning.base import Tuned

# The sets that a run evaluates; zero_shot is the test set before training.
SETS = ("zero_shot", "dev", "test")

CLASS_METRICS: Mapping[Metric, dict[str, ClassMetric]] = {
    Metric.accuracy: {},
    Metric.f1: {"f1": metrics.f1},
    Metric.macro_f1: {"macro_f1": metrics.macro_f1},
    Metric.matthews: {"matthews": metrics.matthews},
}
TEXT_METRICS: Mapping[Metric, dict[str, TextMetric]] = {
    Metric.squad: {"f1": metrics.squad_f1, "em": metrics.squad_em},
    Metric.drop: {"f1": metrics.drop_f1},
    Metric.drop_official: {"f1": drop_official_f1, "em": drop_official_em},
}


def objective_and_evaluators(
    config: Config, with_features: bool, loaded: Loaded, tuned: Tuned, data: Data, scorer: Scorer
) -> tuple[Objective, dict[str, Evaluator]]:
    """Return the objective, and the evaluator of each set by the set's name.

    With ``with_features`` the objective also returns what the output layer reads. If the task's
    answers are generated and the best step is chosen by the dev loss, dev is evaluated by its loss
    alone: generating its answers would cost more than the training between two evaluations.
    """
    hinge = Hinge(config.hinge_margin) if config.loss is LossKind.hinge else None
    loss: Loss = hinge or (language_model if data.by_tokens else classification)
    features = partial(answer_features, loaded.model) if with_features else None
    by_loss = OptionObjective(scorer, data.layout, loaded.device, loss, features)
    minimizes_metric = config.objective is Minimize.metric
    if config.task.answer is None:
        class_metrics = CLASS_METRICS[config.task.metric]
        evaluator: Evaluator = OptionEvaluator(
            scorer,
            data.layout,
            loaded.device,
            loss,
            class_metrics,
            data.by_tokens,
            hinge.of_guess if hinge else math.log,
        )
        by_metric = OptionObjective(scorer, data.layout, loaded.device, minus_accuracy)
        return by_metric if minimizes_metric else by_loss, dict.fromkeys(SETS, evaluator)
    if config.task.metric is Metric.perplexity:
        return by_loss, dict.fromkeys(SETS, LossEvaluator(by_loss, perplexity=True))
    generator = Generator(
        tuned.model,
        loaded.tokenizer,
        config.task.max_new_tokens,
        loaded.device,
        computed_in(config.model),
    )
    text_metrics = TEXT_METRICS[config.task.metric]
    generated = GenerationEvaluator(generator, text_metrics, by_loss)
    evaluators: dict[str, Evaluator] = dict.fromkeys(SETS, generated)
    if config.task.select is Select.dev_loss:
        evaluators["dev"] = LossEvaluator(by_loss)
    objective = GenerationObjective(generator, next(iter(text_metrics.values())))
    return objective if minimizes_metric else by_loss, evaluators
