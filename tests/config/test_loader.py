"""The loader for many configs composes each as Hydra does, node by node, with less work."""

from __future__ import annotations

import hydra
import omegaconf.base
import pytest
from hydra._internal import defaults_list
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from lozo_bench.config.files import check_words_in_files
from lozo_bench.config.less_work import choices_listed_where_used, interpolations_parsed_once
from lozo_bench.config.loader import RememberingLoader
from lozo_bench.config.paths import CONF
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.config.schema import Config

GROUPS = (
    "allocation", "experiment", "grid", "method", "model", "optimizer", "rank", "scale", "seed",
    "task", "tracking", "tuning", "variant",
)  # fmt: skip
OWN = "# @package _global_\nsteps: 3\n"


def options(group):
    return [path.stem for path in sorted((CONF / group).glob("*.yaml"))]


def cell_of(experiment, which):
    """A cell of an experiment: the first or the last value of each swept key."""
    path = CONF / "experiment" / f"{experiment}.yaml"
    params = OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params") or {}
    simple = {
        key: str(values) for key, values in params.items() if not set("([") & set(str(values))
    }
    words = [f"{key}={values.split(',')[which].strip()}" for key, values in simple.items()]
    return [f"experiment={experiment}", *words]


def tuned_cell(path):
    names = zip(("optimizer", "model", "task"), path.stem.split("-"), strict=True)
    return [f"tuning={path.parent.name}", *(f"{key}={name}" for key, name in names)]


# Each differs from the one before it early, late or in values only; some are mistakes.
WORDS = [
    ["optimizer=mezo"],
    ["optimizer=mezo", "optimizer.lr=1e-4", "steps=7"],
    ["optimizer=mezo", "steps=8"],
    ["optimizer=mezo", "seed=s1"],
    ["optimizer=mezo", "seed=s1", "hydra/launcher=local", "hydra.sweep.dir=/x"],
    ["hydra/launcher=slurm", "+hydra.job.env_set.A=b"],
    ["task=several", "+task@task.tasks.rte=rte", "+task@task.tasks.sst2=sst2"],
    ["scale=tiny", "experiment=lozo_opt13b", "task=rte"],
    ["~optimizer.lr", "+optimizer.new={a: [1, 2]}", "++engine.max_rank=8"],
    ["~tracking"],
    ["model=${task}"],
    ["optimizer=nix"],
    ["no_such_key=1"],
    ["steps=x"],
    ["optimizer=lozo,mezo"],
    ["optimizer=lozo", "optimizer.lr=[1"],
    ["optimizer=lozo"],
]
CELLS = [
    *WORDS,
    *(cell_of(name, which) for name in options("experiment") for which in (0, -1)),
    *([f"{group}={name}"] for group in GROUPS for name in options(group)),
    *(tuned_cell(path) for path in sorted((CONF / "tuned").rglob("*.yaml"))),
]


@pytest.fixture(scope="module")
def loaders():
    """Hydra's own loader and ours, which has already composed other configs."""
    register_resolver()
    check_words_in_files()
    ConfigStore.instance().store(name="schema", node=Config)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="train"):
        theirs = GlobalHydra.instance().config_loader()
    return theirs, RememberingLoader(theirs.get_search_path())


def composed(loader, words):
    """All nodes of a config with their types and flags, or why there is none."""
    try:
        return list(nodes(loader.load_configuration("config", list(words), RunMode.RUN)))
    except Exception as error:
        return type(error), str(error), repr(error.__cause__)


def nodes(node, key=""):
    known, has_children = node._metadata, isinstance(node, DictConfig | ListConfig)
    has_children &= not (node._is_none() or node._is_missing() or node._is_interpolation())
    types = type(node), known.ref_type, known.object_type, known.optional, known.flags
    yield key, *types, None if has_children else node._value()
    for name in (
        (node if isinstance(node, DictConfig) else range(len(node))) if has_children else ()
    ):
        child = node._get_node(name)
        assert child._get_parent() is node
        yield from nodes(child, f"{key}.{name}")


@pytest.mark.parametrize("words", CELLS, ids=" ".join)
def test_a_config_is_the_one_that_hydra_composes(loaders, words):
    theirs, ours = loaders
    assert composed(ours, words) == composed(theirs, words)


def test_folders_that_are_searched_too_count_for_their_config_only(loaders, tmp_path):
    (tmp_path / "variant").mkdir()
    (tmp_path / "variant" / "mine.yaml").write_text(OWN)
    searched = f"hydra.searchpath=[file://{tmp_path}]"
    theirs, ours = loaders
    for words in ([searched, "+variant=mine"], ["variant=mine"], [searched, "variant=mine"]):
        assert composed(ours, words) == composed(theirs, words)


def test_the_choices_of_a_defaults_list_can_be_named_by_their_number(loaders, tmp_path):
    (tmp_path / "numbered.yaml").write_text(
        "defaults:\n  - optimizer: lozo\n  - tuned/${defaults.0.optimizer}\n"
    )
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "lozo.yaml").write_text("lr: 1\n")
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "lozo.yaml").write_text("nu: 2\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        theirs = GlobalHydra.instance().config_loader()
        ours = RememberingLoader(theirs.get_search_path())
    configs = [one.load_configuration("numbered", [], RunMode.RUN) for one in (theirs, ours)]
    assert configs[0] == configs[1]
    assert configs[1].tuned == {"nu": 2}


def test_a_config_that_is_changed_changes_no_later_one(loaders):
    _, ours = loaders
    before = composed(ours, ["seed=s1"])
    for words in (["seed=s1"], ["seed=s2"]):
        changed = ours.load_configuration("config", words, RunMode.RUN)
        changed.engine.max_rank = 99
        changed.hydra.job.name = "other"
    assert composed(ours, ["seed=s1"]) == before


def test_a_file_counts_as_it_was_when_it_was_first_read(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        ours = RememberingLoader(GlobalHydra.instance().config_loader().get_search_path())
    assert ours.load_configuration("config", [], RunMode.RUN).a == 1
    (tmp_path / "config.yaml").write_text("a: 2\n")
    assert ours.load_configuration("config", ["+b=1"], RunMode.RUN).a == 1


def counted(monkeypatch, module, name):
    """Count the calls of a function from now on."""
    calls, function = [], getattr(module, name)

    def noted(*arguments, **options):
        calls.append(arguments)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, noted)
    return calls


# These two fail if another version of Hydra or OmegaConf has the work done by another function.
def test_an_interpolation_is_parsed_once(monkeypatch):
    calls = counted(monkeypatch, omegaconf.base, "parse")
    config = OmegaConf.create({"a": 1, "b": "${a} and ${oc.env:HOME}"})
    with interpolations_parsed_once():
        assert config.b == config.b
        config.a = 2
        assert config.b.startswith("2 and ")
    assert len(calls) == 1
    assert config.b.startswith("2 and ")
    assert len(calls) == 2


def test_choices_are_listed_only_for_files_with_interpolations_among_their_defaults(
    loaders, monkeypatch
):
    calls = counted(monkeypatch, defaults_list, "_create_interpolation_map")
    theirs, ours = loaders
    ours.load_configuration("config", ["experiment=lozo_opt13b"], RunMode.RUN)
    assert len(calls) == 1  # config.yaml's
    theirs.load_configuration("config", ["experiment=lozo_opt13b"], RunMode.RUN)
    assert len(calls) > 10


def test_what_shares_its_beginning_with_the_last_config_merges_only_the_rest(loaders, monkeypatch):
    _, ours = loaders
    for seed in ("s0", "s1"):
        ours.load_configuration("config", [f"seed={seed}"], RunMode.RUN)
    calls = counted(monkeypatch, omegaconf.basecontainer.BaseContainer, "merge_with")
    ours.load_configuration("config", ["seed=s2"], RunMode.RUN)
    merged = sum(len(others) for _, *others in calls)
    assert 0 < merged < 6  # of about twenty files


def test_without_the_function_that_is_replaced_nothing_is(monkeypatch):
    monkeypatch.delattr(defaults_list, "_create_interpolation_map")
    with choices_listed_where_used():
        assert not hasattr(defaults_list, "_create_interpolation_map")
