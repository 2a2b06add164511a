"""The commands that both versions are given.

Optimizers, tunings and configuration options are found by their YAML files in the two checkouts. An
option that only one version has is given to both, and so shows as a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

# Several periods of V and several evaluations in few steps; few rows, so that a cell takes seconds.
BASE = (
    "log_every=5", "batch_size=4", "checkpoint.every=10", "model.device=cpu", "tracking=files",
)  # fmt: skip
FEW_ROWS = ("task.source.train=24", "task.source.dev=12", "task.source.test=16")
WRITTEN = (
    "task=squad", "task.invented_rows=6", "task.max_length=128", "task.max_new_tokens=4",
)  # fmt: skip
# The embedded model answers none of those, so a metric stays 0; of these it finds some words.
CONTINUED = (
    "task=squad", "task.invented_rows=6", "task.max_length=128", "task.max_new_tokens=24",
    "task.prompt='{title} It was'", "optimizer.eps=0.05",
)  # fmt: skip
SHORTHANDS = {"WRITTEN": WRITTEN, "CONTINUED": CONTINUED}
# Values for every optimizer that has such an option. The learning rate is large enough to move the
# metrics of an embedded model within 30 steps.
VALUES = {"lr": "1e-4", "nu": "9", "population": "4", "max_iter": "200"}
# The estimate from one forward pass has a variance of (loss / eps)^2, so larger steps diverge.
OWN_VALUES = {"mezo_one_point": {"lr": "1e-7"}}
# Versions may have another eps for a tuning.
TUNED_VALUES = {name: {"eps": "1e-3"} for name in ("lozo", "mezo")}
# Tunings of an adapter beside all weights, which the methods for both need, and no others take.
TWO_LEVEL = "two_level_"
CASES = """
    optimizer=lozo_m model=tiny_roberta
    optimizer=mezo model=tiny_roberta
    optimizer=adamw model=tiny_roberta
    optimizer=zero_shot model=tiny_roberta
    optimizer=linear_probe model=tiny_roberta
    optimizer=lozo model=tiny_roberta model.kind=classifier
    optimizer=adamw model=tiny_opt model.kind=classifier
    optimizer=mezo tuning=lora model=tiny_opt model.kind=classifier
    optimizer=mezo tuning=lora model=tiny_roberta tuning.train_head=true model.untie_head=true
    optimizer=lozo engine.mode=in_place
    optimizer=lozo_m engine.mode=in_place
    optimizer=lozo_q engine.mode=in_place
    optimizer=lozo_per_example engine.mode=in_place
    optimizer=eggroll engine.mode=in_place
    optimizer=lozo engine.mode=in_place model=tiny_roberta
    optimizer=lozo model.dtype=bf16 engine.max_rank=4
    optimizer=lozo model.dtype=bf16 engine.max_rank=4 engine.rounding=nearest
    optimizer=lozo model.dtype=bf16 engine.max_rank=4 engine.rounding=residual
    optimizer=lozo model.dtype=bf16 engine.mode=in_place
    optimizer=lozo_m model.dtype=bf16 engine.max_rank=4
    optimizer=mezo model.dtype=bf16
    optimizer=lozo objective=metric
    optimizer=mezo objective=metric model=tiny_roberta
    optimizer=lozo WRITTEN
    optimizer=mezo CONTINUED objective=metric task.select=last
    optimizer=lozo CONTINUED objective=metric task.select=dev_metric
    optimizer=zero_shot WRITTEN
    optimizer=icl WRITTEN optimizer.demonstrations=1
    optimizer=lozo task=copa task.invented_rows=6
    optimizer=lozo task=multirc task.invented_rows=6 task.max_length=128
    optimizer=lozo model=tiny_roberta task=snli_kshot task.invented_rows=6
    optimizer=lozo model=tiny_roberta task=rte_clora task.invented_rows=6 task.max_length=128
    optimizer=adamw model=tiny_roberta task=mrpc_head model.kind=classifier task.invented_rows=6
    optimizer=lozo task=entailment
    optimizer=lozo task=topics
    optimizer=lozo schedule=linear micro_batch_size=2
    optimizer=lozo engine.candidates_per_forward=1 engine.buckets=false
    optimizer=lozo engine.answer_positions=false engine.answer_columns=false
    optimizer=lozo engine.share_prompt=false
    optimizer=lozo checkpoint.kind=full
    optimizer=lozo rank=r4 seed=s1 optimizer.weight_decay=0.1
    optimizer=lozo optimizer.scale=paper optimizer.replicate_boundary_bug=true
    optimizer=lozo_m optimizer.projection=exact optimizer.bias_correction=true
    optimizer=lozo_m optimizer.replicate_boundary_bug=true
    optimizer=lozo_per_example optimizer.weights=group
    optimizer=eggroll optimizer.fitness=zscore
    optimizer=mezo optimizer.directions=4 optimizer.directions_schedule=linear
    optimizer=mezo micro_batch_size=2 optimizer.weight_decay=0.1
    optimizer=mezo_scaled optimizer.norm=gradient optimizer.estimate=expectation
    optimizer=mezo_scaled optimizer.norm=gradient_zo optimizer.recompute_every=10
    optimizer=zo_block optimizer.update=together
    optimizer=zo_sparse optimizer.group=layer optimizer.resample_every=10
    optimizer=adamw model.autocast=bf16 schedule=linear
    optimizer=adamw model.gradient_checkpointing=true micro_batch_size=2
    optimizer=sgd optimizer.momentum=0.9 optimizer.weight_decay=0.1
    optimizer=adafactor tuning=ia3 optimizer.scale_parameter=true
    optimizer=zero_shot optimizer.calibrated=true task=sst2 task.invented_rows=6
    optimizer=icl optimizer.sets=fixed optimizer.demonstrations=2
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """A command for both versions.

    Args:
        name: the choices that make this cell different from the others.
        overrides: the whole command line.
        trains: whether it is a run. If not, only the composed configuration is printed.
    """

    name: str
    overrides: tuple[str, ...]
    trains: bool = True


def conf_of(checkout: Path) -> Path:
    """Return the configuration folder of a checkout."""
    places = (checkout / "conf", checkout / "lozo_bench" / "conf")
    return next((place for place in places if place.is_dir()), places[0])


def options(checkouts: Sequence[Path], group: str) -> dict[str, dict[str, Any]]:
    """Return each option of a config group in any of the checkouts, with its YAML content."""
    found: dict[str, dict[str, Any]] = {}
    for checkout in reversed(checkouts):  # where both have it, the first one's content counts
        for path in (conf_of(checkout) / group).glob("*.yaml"):
            found[path.stem] = _yaml(path)
    return dict(sorted(found.items()))


def groups(checkouts: Sequence[Path]) -> list[str]:
    """Return the config groups that can be chosen on the command line of any checkout."""
    found = set()
    for checkout in checkouts:
        config = _yaml(conf_of(checkout) / "config.yaml")
        for entry in config["defaults"]:
            found |= set(entry) if isinstance(entry, dict) else set()
    return sorted(name for name in found if not name.startswith("optional "))


def runs(checkouts: Sequence[Path], steps: int) -> list[Cell]:
    """Return the training runs: every optimizer, every tuning, both models, and `CASES`."""
    optimizers = options(checkouts, "optimizer")
    choices = [[f"optimizer={name}"] for name in optimizers]
    for tuning in options(checkouts, "tuning"):
        untied = ["model.untie_head=true"] if tuning == "head" else []
        if tuning.startswith(TWO_LEVEL):
            choices.append(["optimizer=bilevel_zofo", f"tuning={tuning}", "model=tiny_roberta"])
            continue
        for name, model in (
            ("lozo", "tiny_opt"),
            ("mezo", "tiny_opt"),
            ("adamw", "tiny_opt"),
            ("lozo", "tiny_roberta"),
        ):
            if tuning != "full" or model != "tiny_opt":
                one = [f"optimizer={name}", f"tuning={tuning}", f"model={model}", *untied]
                choices.append(one)
    for line in CASES.strip().splitlines():
        choices.append([one for word in line.split() for one in SHORTHANDS.get(word, (word,))])
    return [_run(choice, optimizers, steps) for choice in choices]


def _run(choice: Sequence[str], optimizers: dict[str, dict[str, Any]], steps: int) -> Cell:
    given = dict(item.split("=", 1) for item in choice)
    name = given["optimizer"]
    two_level = name in (
        "bilevel_zofo",
        "bilevel_zofo_multitask",
        "bome",
        "hybrid_zofo",
        "two_stage",
    )
    tuning = f"{TWO_LEVEL}lora" if two_level else "full"
    chosen = {"optimizer": name, "tuning": tuning, "model": "tiny_opt"} | given
    values = VALUES | OWN_VALUES.get(name, {})
    if chosen["tuning"] != "full":
        values |= TUNED_VALUES.get(name, {})
    tuned = {
        f"optimizer.{key}": value
        for key, value in values.items()
        if key in optimizers.get(name, {}) and f"optimizer.{key}" not in given
    }
    rows = () if "task.invented_rows" in given else FEW_ROWS
    length = (f"steps={steps}", f"eval_every={max(1, steps // 3)}")
    spelled = [f"{key}={value}" for key, value in (chosen | tuned).items()]
    label = " ".join(f"{key}={value}" for key, value in chosen.items())
    return Cell(label, (*spelled, *length, *BASE, *rows))


def configs(checkouts: Sequence[Path]) -> list[Cell]:
    """Return a cell for each option of each config group, which prints its configuration."""
    return [
        Cell(f"config {group}={name}", (f"{group}={name}", "--cfg", "job", "--resolve"), False)
        for group in groups(checkouts)
        for name in options(checkouts, group)
    ]


def _yaml(path: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
