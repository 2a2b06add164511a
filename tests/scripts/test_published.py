"""The published hyperparameters: the config files match the facts, and cells use them."""

from __future__ import annotations

import sys
from pathlib import Path

import programs
import pytest
import yaml
from hydra import compose
from omegaconf import OmegaConf

from lozo_bench.config.schema import Config, Shown, TableConfig
from lozo_bench.tables.cells import configs
from lozo_bench.tables.published import PUBLISHED, read_published

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import published  # noqa: E402
from published_facts import GRIDS  # noqa: E402

CONF, FACTS = published.CONF, published.FACTS
FILES = published.files()
TUNED = [path for path in FILES if path.startswith("tuned/")]
SCHEMA = OmegaConf.structured(Config)
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))


def cell(path):
    """Return the overrides of the cell that a file belongs to."""
    _, tuning, name = path.removesuffix(".yaml").split("/")
    optimizer, model, task = name.split("-")
    return [f"optimizer={optimizer}", f"tuning={tuning}", f"model={model}", f"task={task}"]


def test_the_committed_files_equal_what_the_script_writes():
    done = programs.run(SCRIPTS, "--check", script=SCRIPTS / "published.py")
    assert (done.stdout, done.returncode) == ("", 0), "python scripts/published.py updates them"


@pytest.mark.parametrize("path", TUNED)
def test_a_file_is_named_after_an_existing_optimizer_tuning_model_and_task(path):
    for text in cell(path):
        group, option = text.split("=")
        assert (CONF / group / f"{option}.yaml").is_file(), text
    values = OmegaConf.create(yaml.safe_load(FILES[path]))
    OmegaConf.merge(SCHEMA, values)  # checks keys and types


@pytest.mark.parametrize(
    "facts", FACTS, ids=lambda facts: f"{facts.tuning}-{facts.optimizer}-{facts.tasks[-1]}"
)
def test_a_cell_uses_its_values_and_the_command_line_overrides_them(facts):
    """Only one cell of each fact is tested; the others differ only in their names."""
    path = f"tuned/{facts.tuning}/{facts.optimizer}-{facts.models[-1]}-{facts.tasks[-1]}.yaml"
    with configs(CONF):
        config = compose("config", [*cell(path), "eval_every=7"])
    plain = OmegaConf.create(OmegaConf.to_container(config, enum_to_str=True))
    for key, value in facts.values.items():
        wanted = 7 if key == "eval_every" else yaml.safe_load(value)
        if value == "${optimizer.lr}":
            wanted = plain.optimizer.lr
        assert OmegaConf.select(plain, key) == wanted, key


def value_of(path, key):
    return yaml.safe_load(FILES[path])["optimizer"][key]


@pytest.mark.parametrize(
    ("model", "task"), [("opt_13b", "wsc"), ("opt_66b", "squad"), ("llama2_7b", "sst2")]
)
def test_the_same_rule_chooses_the_values_of_lozo_and_of_mezo(model, task):
    """Both READMEs have lr 1e-7 as their example for OPT-13B."""
    lozo, mezo = (f"tuned/full/{name}-{model}-{task}.yaml" for name in ("lozo", "mezo"))
    assert value_of(lozo, "lr") == value_of(mezo, "lr") == 1e-7
    assert value_of(lozo, "eps") == value_of(mezo, "eps") == 1e-3


def test_a_value_from_a_grid_is_in_it():
    for facts in FACTS:
        choices = [GRIDS[grid].choices["optimizer.lr"].split(",") for grid in facts.grids]
        for task in facts.tasks if choices else ():
            values = {**facts.values, **(facts.of_task(task) if facts.of_task else {})}
            for lrs in choices:
                assert float(values["optimizer.lr"]) in map(float, lrs)


def test_roberta_lora_has_the_weight_decay_that_was_run():
    path = "tuned/lora/mezo-roberta_large-sst2_kshot.yaml"
    assert value_of(path, "weight_decay") == 0
    assert "ignored it" in FILES[path]


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_begins_with_the_command_that_sweeps_it(name):
    (line,) = [line for line in FILES[f"grid/{name}.yaml"].splitlines() if "lozo-train" in line]
    *words, grid = line.removeprefix("# lozo-train -m ").split()
    assert grid == f"grid={name}"
    for group, options in (word.split("=") for word in words):
        for option in options.split(","):
            assert (CONF / group / f"{option}.yaml").is_file()


def numbers_beside(table):
    """Return the places of all published numbers, of test metrics and of costs."""
    return [
        place
        for show in Shown
        for place in read_published(table.published, len(table.rows), show).numbers
    ]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_names_existing_grids_and_published_numbers(path):
    node = OmegaConf.select(OmegaConf.load(path), "table")
    table = OmegaConf.merge(OmegaConf.structured(TableConfig), node or {})
    for rule in table.grids:
        assert f"grid/{rule.grid}.yaml" in FILES
    params = OmegaConf.load(path).get("hydra", {}).get("sweeper", {}).get("params", {})
    for row, column in numbers_beside(table):
        for key, name in zip([*table.rows, *table.columns], [*row, *column], strict=True):
            assert name in str(params[key]).split(",")


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.csv")), ids=lambda path: path.stem)
def test_published_numbers_name_their_source(path):
    assert path.read_text().startswith("# ")
    assert "arXiv" in path.read_text().splitlines()[0]


@pytest.mark.parametrize(("method", "mean"), [("lozo", 70.62), ("mezo", 68.76)])
def test_the_means_over_the_tasks_of_lozos_table_2(method, mean):
    numbers = read_published("lozo_opt13b", 1).numbers
    of_method = [float(number) for (row, _), number in numbers.items() if row == (method,)]
    assert len(of_method) == 11
    assert round(sum(of_method) / 11, 2) == mean
