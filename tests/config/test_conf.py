"""Every YAML file composes. The tests find the files, so a new file is tested automatically."""

from __future__ import annotations

from pathlib import Path

import pytest
from cells import composed
from omegaconf import OmegaConf

from lozo_bench.config.build import build
from lozo_bench.config.checks import check, check_prompts
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.config.schema import Kind
from lozo_bench.config.several import task_configs
from lozo_bench.engine import Draws, InPlace
from lozo_bench.models.locate import model_kind
from lozo_bench.training.checks import typed

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = (
    "model", "task", "optimizer", "tuning", "allocation", "rank", "seed", "tracking", "method",
    "experiment", "variant", "scale",
)  # fmt: skip


def swept(path, group):
    """The options of a group that an experiment sweeps over."""
    params = OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params") or {}
    return [name for name in str(params.get(group, "")).split(",") if name]


OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
# A variant changes values that only some optimizers or tunings have: those of the experiment that
# sweeps over it.
EXPERIMENT_OF = {
    variant: path.stem
    for path in sorted((CONF / "experiment").glob("*.yaml"))
    for variant in swept(path, "variant")
}
IDS = [f"{group}={option}" for group, option in OPTIONS]


@pytest.mark.parametrize("name", [option for group, option in OPTIONS if group == "allocation"])
def test_every_allocation_can_be_made(name):
    config, _ = typed(composed(f"allocation={name}"))
    assert (name == "none") is (config.allocation == {})
    if config.allocation:
        build(config.allocation, "allocation")


# tests/config/test_collections.py tests the settings of collections, which have up to 87 tasks.
SINGLE = [
    (group, option)
    for group, option in OPTIONS
    if group != "task" or "@tasks." not in (CONF / "task" / f"{option}.yaml").read_text()
]
NEEDED = {
    "local": ["model.path=embedded:tiny_opt"],
    "bilevel_multitask": ["task.data_dir=."],  # a collection
    "several": ["+task@task.tasks.rte=rte", "task.tasks.rte.data_dir=."],
}


@pytest.mark.parametrize(
    ("group", "option"), SINGLE, ids=[f"{group}={option}" for group, option in SINGLE]
)
def test_every_option_composes_to_a_config_that_passes_all_checks(group, option):
    needed = NEEDED.get(option, [])
    if group == "task" and not needed:  # tasks that read a folder need one
        needed = ["task.data_dir=."]
    if group == "variant":
        needed = [f"experiment={EXPERIMENT_OF[option]}"]
    config, _ = typed(composed(f"{group}={option}", *needed))
    check(config)
    for one in task_configs(config).values():
        build(one.task.source, "task.source")
        if group == "task":
            check_that_it_suits_some_kind_of_model(one)
    if config.optimizer:  # zero_shot and icl have none
        optimizer = build(config.optimizer, "optimizer", InPlace({}), Draws(0))
        assert "lr" in vars(optimizer)  # the schedule sets it, and a full state has it


def check_that_it_suits_some_kind_of_model(config):
    suited = [config.task.template is not None, config.task.prompt is not None]
    for_heads = config.task.name.endswith("_head")
    assert any(suited) != for_heads
    kinds = (Kind.masked, Kind.causal, Kind.classifier)
    for kind, suits in zip(kinds, [*suited, for_heads], strict=True):
        if suits:
            check_prompts(config, kind)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=IDS)
def test_every_option_file_begins_with_the_command_that_uses_it(group, option):
    lines = (CONF / group / f"{option}.yaml").read_text().splitlines()
    first = lines[1] if lines[0] == "# @package _global_" else lines[0]
    assert first.startswith("# lozo-train ")
    assert f"{group}={option}" in first


# tests/scripts/test_published.py has a faster test of the files that scripts/published.py writes.
HAND_WRITTEN = [
    path
    for path in sorted((CONF / "tuned").rglob("*.yaml"))
    if "scripts/published.py" not in path.read_text()
]


@pytest.mark.parametrize("path", HAND_WRITTEN, ids=lambda path: path.stem)
def test_a_cell_uses_its_tuned_values_and_the_command_line_overrides_them(path):
    optimizer, model, task = path.stem.split("-")
    cell = (
        f"optimizer={optimizer}", f"tuning={path.parent.name}", f"model={model}", f"task={task}",
    )  # fmt: skip
    tuned = OmegaConf.load(path)
    config = composed(*cell, "steps=7")
    assert config.optimizer.lr == tuned.optimizer.lr
    assert config.steps == 7
    parsed, _ = typed(config)
    check_prompts(parsed, model_kind(parsed.model))


@pytest.mark.parametrize(("split", "epoch"), [("sane", 57), ("published", 7)])
def test_the_steps_of_five_wsc_epochs_depend_on_its_split(split, epoch):
    config = composed("model=opt_13b", "task=wsc", "optimizer=adamw", f"task.split={split}")
    # the splits have 454 and 54 training rows; batches have 8
    assert (config.steps, config.eval_every) == (5 * epoch, epoch)


@pytest.mark.parametrize(("objective", "select"), [("loss", "dev_loss"), ("metric", "last")])
def test_non_differentiable_objectives_select_the_step_as_published(objective, select):
    config, _ = typed(composed("experiment=mezo_nondiff_opt", f"objective={objective}"))
    assert config.task.select.value == select


def test_published_roberta_lora_also_trains_the_head_and_mezo_lora_does_not():
    cell = ("experiment=mezo_roberta_k16", "method=mezo_lora_head")
    assert composed(*cell).tuning.train_head
    alone = composed("model=roberta_large", "task=sst2_kshot", "method=mezo_lora")
    assert not alone.tuning.train_head
    assert composed(*cell).optimizer == alone.optimizer


def test_rank_and_seed_accept_numbers_that_have_no_option():
    config = composed("rank.value=3", "seed.value=7")
    assert (config.rank.value, config.seed.value, config.optimizer.rank) == (3, 7, 3)


# Published grids: MeZO, Tables 15 and 16; of prompts ZO-Bench's.
GRIDS = {"lora": (1e-5, 1e-4), "prefix": (1e-3, 5e-2), "prompt": (1e-8, 1e-3)}
EPS = {"lora": (1e-3, 1e-2), "prefix": (1e-2, 1e-1), "prompt": (1e-4, 1e-2)}


# A step of zo_sgd_sign is lr itself, whatever the slope is.
FOLLOWING = [
    path
    for path in sorted((CONF / "optimizer").glob("*.yaml"))
    if "\nlr: ${per_tuning" in path.read_text() and path.stem != "zo_sgd_sign"
]


@pytest.mark.parametrize("tuning", GRIDS)
@pytest.mark.parametrize("path", FOLLOWING, ids=lambda path: path.stem)
def test_lr_and_eps_of_a_zeroth_order_method_follow_the_tuning(path, tuning):
    register_resolver()
    full, other = (
        OmegaConf.create(
            {
                "tuning": OmegaConf.load(CONF / "tuning" / f"{name}.yaml"),
                "optimizer": OmegaConf.load(path),
                "rank": {"value": 2},
            }
        ).optimizer
        for name in ("full", tuning)
    )
    low, high = GRIDS[tuning]
    assert full.lr in (1e-6, 1e-7)
    assert low <= other.lr <= high
    if path.stem != "forward_grad":  # it has no distance
        key = "sigma" if path.stem == "eggroll" else "eps"
        low, high = EPS[tuning]
        assert full[key] == 1e-3
        assert low <= other[key] <= high


@pytest.mark.parametrize("method", ["optimizer=mezo tuning=prefix", "method=mezo_prefix"])
def test_a_value_of_a_tuning_is_overridden_by_the_command_line_and_by_a_tuned_file(method):
    plain = composed("model=tiny_opt", "task=reviews", *method.split())
    assert (plain.optimizer.lr, plain.optimizer.eps) == (1e-2, 1e-1)
    given = composed("model=tiny_opt", "task=reviews", *method.split(), "optimizer.lr=0.125")
    assert (given.optimizer.lr, given.optimizer.eps) == (0.125, 1e-1)
    tuned = composed("model=opt_13b", "task=sst2", *method.split())
    assert (tuned.optimizer.lr, tuned.optimizer.eps) == (1e-3, 1e-1)


@pytest.mark.parametrize("scale", ["published", "tiny"])
def test_a_value_can_follow_the_scale_whatever_else_is_given(scale):
    config = composed(f"scale={scale}", "task.invented_rows=3")
    config.steps = "${per_scale:{published:8000,tiny:120}}"
    assert config.steps == {"published": 8000, "tiny": 120}[scale]


def test_a_value_can_follow_the_optimizer():
    steps = {}
    for optimizer in ("adamw", "mezo", "zero_shot"):
        config = composed(f"optimizer={optimizer}")
        config.steps = "${per_optimizer:{adamw:1000,other:3840}}"
        steps[optimizer] = config.steps
    assert steps == {"adamw": 1000, "mezo": 3840, "zero_shot": 3840}


@pytest.mark.parametrize(
    ("method", "calls"), [("mezo_lora", 2 * 3840), ("lozo", 2 * 3840), ("c_lora", 8000)]
)
def test_methods_that_are_compared_get_equal_calls_of_the_whole_training_set(method, calls):
    """A method's own budget of 8,000 pays for 7,680 calls with 24, 32 or 48 layers."""
    config = composed("experiment=clora_main", "variant=equal_calls", f"method={method}")
    in_turns = "budget" in config.optimizer
    assert (config.optimizer.budget if in_turns else 2 * config.steps) == calls
    assert config.eval_every * (config.optimizer.popsize if in_turns else 2) == 100
    assert in_turns or config.batch_size >= 14 * config.task.source.k


def test_a_tuning_without_published_values_has_those_of_all_weights():
    assert composed("tuning=ia3", "optimizer=mezo").optimizer.eps == 1e-3


def test_a_file_of_a_group_may_set_what_config_yaml_sets(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# @package _global_\nengine: {max_rank: 5}\n")
    searched = f"hydra.searchpath=[file://{tmp_path}]"
    assert composed(searched, "method=mine").engine.max_rank == 5
