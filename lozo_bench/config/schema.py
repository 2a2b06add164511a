"""The typed configuration of a run.

The dataclasses go into Hydra's ConfigStore as the node ``schema``, so that every YAML file and
every override is checked while the config is composed, before a model is loaded. Optimizers,
tunings, allocations and task sources are the exception: their schema is the signature of the class
that ``_target_`` names (see `lozo_bench.config.build`), so that a new one is one file and one YAML.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Kind(Enum):
    """How a model predicts: words, or classes by a head of its own (``classifier``).

    ``auto`` reads it from the model's own config.json.
    """

    auto = "auto"
    causal = "causal"
    masked = "masked"
    classifier = "classifier"


class Dtype(Enum):
    """The data type of the weights."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Select(Enum):
    """Which step's weights are tested: best dev metric, lowest dev loss, or the last step's.

    Of steps that are equally good the first one is tested.
    """

    dev_metric = "dev_metric"
    dev_loss = "dev_loss"
    last = "last"


class TrainAs(Enum):
    """Whether the choice among the options is trained, or the text of the correct one.

    ``language_model`` minimizes the mean over all tokens of the batch, so long answers weigh more.
    """

    classification = "classification"
    language_model = "language_model"


class Prompts(Enum):
    """Which of a task's prompts a causal model reads: the published one, or an empty one.

    An empty prompt is the row's texts alone, before the same options.
    """

    published = "published"
    empty = "empty"


class Minimize(Enum):
    """What the optimizer minimizes: the loss, or minus a metric, which has no gradient.

    ``metric`` is the accuracy of chosen options, or the F1 of generated answers.
    """

    loss = "loss"
    metric = "metric"


class LossKind(Enum):
    """The loss of a choice among options: of training, and of the sets that are evaluated.

    ``hinge`` is the sum, over the wrong options, of max(0, their score - the right one's + margin).
    It is in units of the scores, not in nats: losses of runs with different ones do not compare.
    """

    cross_entropy = "cross_entropy"
    hinge = "hinge"


class Metric(Enum):
    """The metric of predictions; ``squad`` and ``drop`` are for generated answers.

    ``perplexity`` is for answers that are scored as text and not generated: the exponential of the
    mean loss of all their tokens. The lower it is, the better.

    ``f1`` is that of class 1. ``squad`` is token F1, with exact match besides. ``drop`` is the
    simplification of the published code, in which the best of the gold spans counts;
    ``drop_official`` is AllenNLP's metric.
    """

    accuracy = "accuracy"
    f1 = "f1"
    macro_f1 = "macro_f1"
    matthews = "matthews"
    squad = "squad"
    drop = "drop"
    drop_official = "drop_official"
    perplexity = "perplexity"


class Schedule(Enum):
    """The schedule of the learning rate: constant, or falling linearly to 1/steps of it."""

    constant = "constant"
    linear = "linear"


class Mix(Enum):
    """From which tasks the rows of a batch are drawn, if a run has several.

    ``rows``: from all rows alike, every row once an epoch; ``equal``: from each task equally often;
    ``turns``: from one task, and each task has as many batches.
    """

    rows = "rows"
    equal = "equal"
    turns = "turns"


class EngineMode(Enum):
    """How candidates are scored; ``auto`` measures which is faster on the run's first batch.

    ``fused`` does not write to the weights; ``in_place`` moves them to a candidate and back.
    ``published`` does so in the passes of the published code, each of which rounds.
    """

    fused = "fused"
    in_place = "in_place"
    published = "published"
    auto = "auto"

    @property
    def writes_weights(self) -> bool:
        """Whether the mode scores every candidate by moving the weights to it."""
        return self in (EngineMode.in_place, EngineMode.published)


class Rounding(Enum):
    """How pending updates are rounded when they are folded into half-precision weights."""

    nearest = "nearest"
    stochastic = "stochastic"
    residual = "residual"


class Kept(Enum):
    """What a run saves in order to be resumed: its journal, full states, or what its method needs.

    ``auto``: the journal for zeroth-order methods, which can be replayed from seed and losses;
    full states for first-order ones.
    """

    auto = "auto"
    log = "log"
    full = "full"


class Sets(Enum):
    """Whether each row is shown demonstrations of its own, or all rows the same ones."""

    per_example = "per_example"
    fixed = "fixed"


class Split(Enum):
    """What several processes divide among themselves: the examples of a step, or its candidates."""

    batch = "batch"
    candidates = "candidates"


class Pick(Enum):
    """Which point of a grid a table shows: each seed's own best one, or one for all seeds.

    ``overall`` is the point with the best mean over the seeds, among those that all seeds have.
    """

    per_seed = "per_seed"
    overall = "overall"


class By(Enum):
    """By which dev number a table chooses the point of a grid; never by a test metric."""

    dev_metric = "dev_metric"
    dev_loss = "dev_loss"


class Shown(Enum):
    """What a table shows of each run: its test metric in percent, or what the run cost.

    ``held_out`` is the mean test metric of the tasks that are not trained, of runs that have such.
    ``memory`` is its peak memory in GiB, on the GPU if there is one; ``minutes`` is the time of its
    steps, without evaluations, and ``seconds_per_step`` that of a step; ``passes`` are its forward
    and backward passes of a batch, and ``queries`` its forward passes of one row.
    """

    test = "test"
    held_out = "held_out"
    memory = "memory"
    minutes = "minutes"
    seconds_per_step = "seconds_per_step"
    passes = "passes"
    queries = "queries"


class Rerun(Enum):
    """Which cells run: those without a result, only those that failed, or all from the start."""

    missing = "missing"
    failed = "failed"
    all = "all"


class Scale(Enum):
    """Whether the run has the published sizes, or those of a trial that takes seconds."""

    published = "published"
    tiny = "tiny"


class WandbMode(Enum):
    """Where wandb writes. ``offline`` needs no account; `wandb sync` uploads later."""

    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class ModelConfig:
    """A model and how to load it. ``path``: hub name, local directory, or ``embedded:NAME``.

    ``stand_in`` is the embedded model that replaces it with ``scale=tiny``. ``autocast`` is torch's
    mixed precision: passes in ``bf16`` or ``fp16`` with float32 weights. With
    ``gradient_checkpointing``, activations inside a layer are recomputed for the backward pass.
    ``adapter`` is the folder of an earlier adapter to start from, in peft's format or as
    `lozo-export` writes it: the same tuning continues to train it, before any other one it is
    merged into the weights.
    """

    name: str = "???"
    path: str = "???"
    kind: Kind = Kind.auto
    dtype: Dtype = Dtype.fp32
    device: str = "auto"
    device_map: str | None = None
    autocast: str | None = None
    gradient_checkpointing: bool = False
    bos_token: str | None = None
    untie_head: bool = False
    adapter: str | None = None
    stand_in: str = "tiny_opt"


@dataclass
class TaskConfig:
    """A data set, its prompts for masked and causal models, and its metric.

    ``options`` are the texts to choose from; ``answer``, instead of them, is a text that a causal
    model generates. Both may contain ``{field}``. ``calibration`` replaces the prompt when options
    are scored relative to their probability without the row (SFC). ``invented_rows``, if not 0, is
    the number of made-up rows in each of the three sets, which replace the source's. With
    ``joined``, template and prompt are C-LoRA's: whole texts, in which the first tokens of the
    words are compared. ``folder`` is the name of the task's folder in its benchmark, and ``split``
    chooses among several ways to divide the rows, if the task has them. ``texts`` are the one or
    two texts that a classifier head reads; without them it reads the row's fields. ``prompts``
    chooses between ``prompt`` and ``empty_prompt``.

    ``tasks`` are the tasks of a run that has several, each with all keys of its own; of the keys
    beside it only ``name``, ``select``, ``prompts``, ``invented_rows`` and these have a meaning:
    ``held_out`` names the tasks that are tested and not trained, and ``mix`` says how often each
    of the others is.
    """

    name: str = "???"
    version: int = 1
    data_dir: str | None = None
    folder: str | None = None
    split: str | None = None
    source: dict[str, Any] = field(default_factory=dict)
    template: str | None = None
    label_words: list[str] = field(default_factory=list)
    prompt: str | None = None
    prompts: Prompts = Prompts.published
    empty_prompt: str | None = None
    options: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    answer: str | None = None
    calibration: str | None = None
    joined: bool = False
    train_as: TrainAs = TrainAs.classification
    metric: Metric = Metric.accuracy
    max_length: int = 256
    max_new_tokens: int = 50
    first_sentence_limit: int | None = None
    other_sentence_limit: int | None = None
    select: Select = Select.dev_metric
    invented_rows: int = 0
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    held_out: list[str] = field(default_factory=list)
    mix: Mix = Mix.rows


@dataclass
class RankConfig:
    """Rank r of the low-rank direction U V^T."""

    value: int = 2


@dataclass
class SeedConfig:
    """Seed of everything random in a run: directions, batch order, data split."""

    value: int = 0


@dataclass
class EngineConfig:
    """How losses are computed. Nothing here changes the result, except by rounding.

    ``candidates_per_forward``: how many candidates share a forward pass; null: as many as stay
    within 256 tokens, on a GPU within 2048 tokens and at most 4. ``max_rank``: how many columns of
    low-rank updates are kept beside half-precision weights before they are folded in; float32
    weights take each period when it closes. ``max_bad_steps``: how many steps in a row may be
    skipped because a loss is not finite.
    ``keep_z``: whether a full-rank Gaussian direction stays in memory for the whole step, which
    takes 4 bytes for each parameter and saves two of its three draws on a CPU.
    ``reuse_prefix``: whether the layers below the first one in which candidates differ are run once
    for all of them. ``graphs``: whether forward passes on an NVIDIA GPU are recorded as CUDA graphs
    and repeated, which saves the time that starting their kernels takes.
    """

    mode: EngineMode = EngineMode.fused
    candidates_per_forward: int | None = None
    max_rank: int = 32
    rounding: Rounding = Rounding.stochastic
    max_bad_steps: int = 3
    answer_positions: bool = True
    answer_columns: bool = True
    share_prompt: bool = True
    buckets: bool = True
    keep_z: bool = False
    reuse_prefix: bool = True
    graphs: bool = True


@dataclass
class CheckpointConfig:
    """What is saved of a run, so that it can be interrupted at any time.

    ``every``: steps between two writes. ``keep``: how many full states are kept, the newest ones.
    """

    kind: Kept = Kept.auto
    every: int = 100
    keep: int = 2


@dataclass
class ParallelConfig:
    """How the processes of torchrun or of a SLURM job step share a run.

    ``timeout_s``: after so many seconds without a message another process counts as lost.
    """

    split: Split = Split.batch
    timeout_s: float = 1800.0


@dataclass
class EvaluationConfig:
    """How test rows are put to the model.

    ``shots`` training rows with their answers are shown before each row (in-context learning); they
    are drawn under ``seed``. With ``calibrated``, options are scored relative to their probability
    without the row (surface-form competition, SFC), after the task's ``calibration`` text; with
    ``calibrate_shown`` the demonstrations stand before that text too.
    """

    shots: int = 0
    sets: Sets = Sets.per_example
    seed: int = 0
    calibrated: bool = False
    calibrate_shown: bool = False


@dataclass
class TrackingConfig:
    """Where numbers are logged besides the run's own files.

    ``trackers`` are the trackers besides wandb, by name: classes with their options. ``name``,
    ``group`` and ``tags`` are for all of them; a run without a name is called after its folder.
    """

    wandb: bool = False
    mode: WandbMode = WandbMode.offline
    project: str = "lozo-bench"
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    trackers: dict[str, Any] = field(default_factory=dict)


# The machines that an estimate can be for.
CARDS = ("h100", "h200", "a100", "4090", "cpu")


@dataclass
class EstimateConfig:
    """Whether a command only prints what its runs would need and cost; nothing is run or loaded.

    ``estimate=true`` is short for ``estimate.enabled=true``. ``card`` is h100, h200, a100, 4090 or
    cpu, which is this machine; ``cards`` is how many of them a run has, with ``model.device_map``.
    """

    enabled: bool = False
    card: str = "h100"
    cards: int = 1


@dataclass
class TableConfig:
    """How `lozo-tables` prints the runs of a sweep; the sweep itself does not use it.

    ``show`` is what the table is about. ``rows`` and ``columns`` are swept choices, ``over`` is the
    choice whose mean is shown. All
    other swept choices are a grid, from which ``select`` and ``by`` choose a point. ``grids`` are
    the published grids, each with the choices that it is for: ``{method: mezo, task: "squad,drop",
    grid: NAME}``; if several fit, the last one counts. ``published`` is the name of
    files of `lozo_bench/tables/published`, and ``names`` are titles of choices.
    """

    title: str = ""
    show: Shown = Shown.test
    rows: list[str] = field(default_factory=lambda: ["method"])
    columns: list[str] = field(default_factory=lambda: ["task"])
    over: str = "seed"
    select: Pick = Pick.per_seed
    by: By = By.dev_metric
    grids: list[dict[str, str]] = field(default_factory=list)
    published: str | None = None
    names: dict[str, str] = field(default_factory=dict)


@dataclass
class Config:
    """One run.

    ``hinge_margin`` is the margin of ``loss=hinge``. ``scale`` is set by the file of the group
    ``scale`` that is chosen.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    optimizer: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)
    allocation: dict[str, Any] = field(default_factory=dict)
    rank: RankConfig = field(default_factory=RankConfig)
    seed: SeedConfig = field(default_factory=SeedConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    table: TableConfig = field(default_factory=TableConfig)
    estimate: EstimateConfig = field(default_factory=EstimateConfig)
    plugins: list[str] = field(default_factory=list)
    sweep: str = "default"
    predictions: bool = False
    steps: int = 1000
    batch_size: int = 16
    micro_batch_size: int | None = None
    objective: Minimize = Minimize.loss
    loss: LossKind = LossKind.cross_entropy
    hinge_margin: float = 2.0
    eval_batch_size: int = 64
    eval_every: int = 100
    patience: int | None = None
    max_queries: int | None = None
    max_seconds: float | None = None
    log_every: int = 10
    schedule: Schedule = Schedule.constant
    rerun: Rerun = Rerun.missing
    scale: Scale = Scale.published
