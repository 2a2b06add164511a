"""What a run lowers and what it is judged by."""

from __future__ import annotations

from collections.abc import Mapping

from lozo_bench.config.schema import Config, Metric, Select
from lozo_bench.config.schema import Minimize as Lowered
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
from lozo_bench.models.load import Loaded
from lozo_bench.objectives.features import answer_features
from lozo_bench.objectives.generation import GenerationObjective, Generator, TextMetric
from lozo_bench.objectives.losses import (
    Objective,
    OptionObjective,
    classification,
    language_model,
    minus_accuracy,
)
from lozo_bench.objectives.options import Scorer
from lozo_bench.tuning.base import Tuned

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
    """What is lowered, and what each set is judged by.

    A dev set of written answers is judged by its loss alone where the loss chooses: writing them
    would cost more than the training between two evaluations.
    """
    loss = language_model if data.by_tokens else classification
    features = None
    if with_features:
        features = lambda batch: answer_features(loaded.model, batch)  # noqa: E731
    by_loss = OptionObjective(scorer, data.layout, loaded.device, loss, features)
    writes = config.task.answer is not None
    lowers_metric = config.objective is Lowered.metric
    if not writes:
        class_metrics = CLASS_METRICS[config.task.metric]
        evaluator: Evaluator = OptionEvaluator(
            scorer, data.layout, loaded.device, loss, class_metrics, data.by_tokens
        )
        by_metric = OptionObjective(scorer, data.layout, loaded.device, minus_accuracy)
        return by_metric if lowers_metric else by_loss, dict.fromkeys(SETS, evaluator)
    generator = Generator(tuned.model, loaded.tokenizer, config.task.max_new_tokens, loaded.device)
    text_metrics = TEXT_METRICS[config.task.metric]
    written = GenerationEvaluator(generator, text_metrics, by_loss)
    evaluators: dict[str, Evaluator] = dict.fromkeys(SETS, written)
    if config.task.select is Select.dev_loss:
        evaluators["dev"] = LossEvaluator(by_loss)
    objective = GenerationObjective(generator, next(iter(text_metrics.values())))
    return objective if lowers_metric else by_loss, evaluators


SETS = ("zero_shot", "dev", "test")
